/* Builds a filter with libseccomp and writes it to standard output, for comparison with the own compiler.
 *
 * Standard input: the default action; the number of further architectures and their tokens; then, for each rule, its action,
 * the call's name, the number of conditions, and for each its argument, operator (enum scmp_compare) and two values.
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result != 0 && result != -EEXIST) {
        fprintf(stderr, "%s: %d\n", what, result);
        exit(1);
    }
}

int main(void) {
    uint32_t action;
    unsigned count;
    /* libseccomp 2.5 never comes back from some rules about the same argument. */
    alarm(2);
    if (scanf("%" SCNu32 " %u", &action, &count) != 2)
        return 2;
    scmp_filter_ctx context = seccomp_init(action);
    while (count-- > 0) {
        uint32_t token;
        if (scanf("%" SCNu32, &token) != 1)
            return 2;
        check(seccomp_arch_add(context, token), "seccomp_arch_add");
    }
    char name[64];
    while (scanf("%" SCNu32 " %63s %u", &action, name, &count) == 3) {
        struct scmp_arg_cmp conditions[6];
        for (unsigned i = 0; i < count; i++) {
            unsigned op;
            struct scmp_arg_cmp *one = &conditions[i];
            if (scanf("%u %u %" SCNu64 " %" SCNu64, &one->arg, &op, &one->datum_a, &one->datum_b) != 4)
                return 2;
            one->op = op;
        }
        int number = seccomp_syscall_resolve_name(name);
        if (number == __NR_SCMP_ERROR) {
            fprintf(stderr, "%s is unknown\n", name);
            return 1;
        }
        check(seccomp_rule_add_array(context, action, number, count, conditions), name);
    }
    check(seccomp_export_bpf(context, 1), "seccomp_export_bpf");
    return 0;
}
