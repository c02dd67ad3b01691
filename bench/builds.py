"""How long builds take, beside peers: a large context, steps that are all known, stages side by side, and one file that changed."""
import io, os, shutil, socket, statistics, subprocess, tarfile, threading, time

DEVNULL = subprocess.DEVNULL


class BuildKit:
    """BuildKit's own daemon with an OCI runtime, and its own client."""
    name = "buildkit"

    def __init__(self, folder):
        self.folder, self.socket, self.daemon = folder / "buildkit", folder / "buildkit.sock", None

    def start(self):
        self.daemon = subprocess.Popen(
            ["buildkitd", "--root", self.folder, "--addr", "unix://%s" % self.socket, "--oci-worker-net", "host",
             "--containerd-worker=false", "--oci-worker-snapshotter", "overlayfs", "--otel-socket-path", "%s.otel" % self.socket],
            stdin=DEVNULL, stdout=DEVNULL, stderr=open(self.folder.with_suffix(".log"), "a"))
        deadline = time.monotonic() + 30
        while subprocess.run(self.client(self.socket) + ["debug", "workers"], stdout=DEVNULL, stderr=DEVNULL).returncode:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("buildkitd does not answer")
            time.sleep(0.05)
        return self

    def stop(self):
        self.daemon.terminate(); self.daemon.wait()

    def client(self, socket):
        return ["buildctl", "--addr", "unix://%s" % socket]

    def build(self, context, socket, output=None):
        command = self.client(socket) + ["build", "--progress", "quiet", "--frontend", "dockerfile.v0", "--local", "context=%s" % context,
                                         "--local", "dockerfile=%s" % context]
        return command + (["--output", output] if output else [])

    def prune(self):
        subprocess.run(self.client(self.socket) + ["prune", "--all"], check=True, stdout=DEVNULL)


# As an image that other daemons could be given: `type=image` of BuildKit compresses by default, which Berth does when it pushes.
IMAGE = "type=image,name=example.com/made,compression=uncompressed,force-compression=true"


class Contender:
    """One way to build: a command for a context, and what makes its daemon forget."""

    def __init__(self, engine, name, command, forget, environment=None):
        self.engine, self.name, self.command, self.forget = engine, name, command, forget
        self.environment = {**os.environ, **(environment or {})}

    def build(self, context, socket=None):
        """Seconds of one build."""
        command = [str(word) for word in self.command(context, socket or self.engine.socket)]
        began = time.perf_counter()
        done = subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE, env=self.environment, text=True)
        if done.returncode:
            raise RuntimeError("%s: %s" % (command, done.stderr[-2000:]))
        return time.perf_counter() - began


def contenders(engines, buildkit):
    def docker(engine):
        program = engine.cli[0]
        def command(context, socket):
            return [program, "-H", "unix://%s" % socket, "build", "-q", "-t", "made", context]
        def forget():
            for words in (["image", "prune", "-af"], ["builder", "prune", "-af"]):
                subprocess.run([*map(str, engine.cli), *words], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        return command, forget
    found = []
    for engine in engines:
        if engine.name == "podman":
            continue
        found.append(Contender(engine, engine.name, *docker(engine), {"DOCKER_BUILDKIT": "0"}))
    if buildkit:
        found.append(Contender(buildkit, "buildkit", lambda c, s: buildkit.build(c, s, IMAGE), buildkit.prune))
        found.append(Contender(buildkit, "buildkit, no image", lambda c, s: buildkit.build(c, s), buildkit.prune))
    return found


def base(folder):
    """The files to build on: busybox, as an archive that `ADD` unpacks."""
    with tarfile.open(folder / "base.tar", "w") as tar:
        for name in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(name); entry.type = tarfile.DIRTYPE; entry.mode = 0o755
            tar.addfile(entry)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "true", "sleep", "cat", "cp", "rm", "echo", "seq", "sha256sum", "head"):
            entry = tarfile.TarInfo("bin/" + applet); entry.type = tarfile.SYMTYPE; entry.linkname = "busybox"
            tar.addfile(entry)


def context(folder, name, dockerfile):
    made = folder / name
    made.mkdir()
    base(made)
    (made / "Dockerfile").write_text("FROM scratch AS base\nADD base.tar /\n" + dockerfile)
    return made


def large(folder, megabytes):
    """Four steps over a context of half-compressible files of a megabyte."""
    made = context(folder, "large", "COPY tree /src\nRUN cp -r /src/d0 /copy && rm -r /src/d1\nCOPY Dockerfile /\n")
    for number in range(megabytes):
        data = os.urandom(340_000) + bytes(660_000)
        path = made / "tree" / ("d%d" % (number % 15))
        path.mkdir(parents=True, exist_ok=True)
        (path / ("f%d" % number)).write_bytes(b"".join(data[i::40] for i in range(40)))
    os.sync()
    return made


def cached(folder):
    steps = "".join("RUN echo %d > /%d\n" % (n, n) if n % 3 else "COPY Dockerfile /d%d/\n" % n for n in range(28))
    return context(folder, "cached", steps + "CMD [\"true\"]\n")


def stages(folder, busy):
    """Ten stages that compute, and one that takes something of each; and one such stage alone."""
    one = "RUN seq %d | sha256sum > /sum\n" % busy
    ten = "".join("FROM base AS s%d\nRUN echo %d\n%s" % (n, n, one) for n in range(10))
    ten += "FROM base\n" + "".join("COPY --from=s%d /sum /sum%d\n" % (n, n) for n in range(10))
    return context(folder, "ten", ten), context(folder, "one", one)


def many(folder, files):
    made = context(folder, "many", "COPY tree /src\n")
    for number in range(files):
        path = made / "tree" / ("d%d" % (number // 1000))
        if number % 1000 == 0:
            path.mkdir(parents=True)
        (path / ("f%d" % number)).write_text("file %d\n" % number)
    os.sync()
    return made


class Wire:
    """A socket before a daemon's that counts what clients send."""

    def __init__(self, target):
        self.target, self.path, self.sent = str(target), str(target) + ".wire", 0
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path); self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX); server.connect(self.target)
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source, target, counted):
        try:
            while True:
                data = source.recv(1 << 20)
                if not data:
                    break
                if counted:
                    self.sent += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def measure(table, engines, folder, megabytes, files, rounds):
    buildkit = BuildKit(folder).start() if shutil.which("buildkitd") else None
    try:
        all = contenders(engines, buildkit)
        table.add("build: four steps over %d MB" % megabytes, "s", four_steps(all, large(folder, megabytes), rounds), 10)
        shutil.rmtree(folder / "large")
        context = cached(folder)
        known = {}
        for one in all:
            one.build(context)
            known[one.name] = statistics.median(one.build(context) for _ in range(max(rounds, 5))) * 1000
            one.forget()
        table.add("build: 30 steps, all known", "ms", known, 50)
        ten, alone = stages(folder, 4_000_000)
        apart, together = {}, {}
        for one in all:
            one.forget(); apart[one.name] = one.build(alone)
            one.forget(); together[one.name] = one.build(ten)
            one.forget()
        table.add("build: one stage that computes", "s", apart)
        table.add("build: ten of them (%d cores)" % os.cpu_count(), "s", together)
        one_file(table, all, many(folder, files), files)
    finally:
        if buildkit:
            buildkit.stop()


def four_steps(all, context, rounds):
    took = {one.name: [] for one in all}
    for _ in range(min(rounds, 2)):
        for one in all:
            one.forget(); os.sync()
            took[one.name].append(one.build(context))
            one.forget()
    return {name: min(times) for name, times in took.items()}


def one_file(table, all, context, files):
    """What is sent, and how long it takes, when one file has changed since the build before."""
    first, seconds, sent = {}, {}, {}
    for one in all:
        one.forget()
        wire = Wire(one.engine.socket)
        first[one.name] = one.build(context, wire.path)
        before = wire.sent
        (context / "tree/d0/f0").write_text("changed for %s\n" % one.name)
        seconds[one.name] = one.build(context, wire.path)
        sent[one.name] = (wire.sent - before) / 1000
        one.forget()
    table.add("build: %d files, the first time" % files, "s", first)
    table.add("build: %d files, one changed" % files, "s", seconds)
    table.add("build: what is then sent", "kB", sent)
