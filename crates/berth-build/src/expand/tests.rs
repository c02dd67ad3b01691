use super::*;

fn environment() -> Vec<String> {
    ["HOME=/home", "SHELL=bash", "EMPTY=", "NAME=한국어", "FILE=dir/archive.tar.gz", "X=a*c"]
        .map(str::to_owned)
        .to_vec()
}

fn expand(text: &str) -> Result<String, String> {
    let made = Words::new('\\').expand(text, &environment());
    made.map(|made| made.text).map_err(|error| error.to_string())
}

#[test]
fn quotes_and_escapes_are_a_shells() {
    for (text, expected) in [
        ("plain", "plain"),
        ("a'b c'd", "ab cd"),
        ("a\"b c\"d", "ab cd"),
        ("a\\'b", "a'b"),
        ("a\\tb", "atb"),
        ("\"a\\tb\"", "a\\tb"),
        ("\"a\\\\b\"", "a\\b"),
        ("'a\\tb'", "a\\tb"),
        ("end\\", "end"),
        ("end\\\\", "end\\"),
        ("\"it's\"", "it's"),
        ("'\"x\"'", "\"x\""),
        ("'open\\'", "open\\"),
        ("안\\'녕", "안'녕"),
        ("a < b << c", "a < b << c"),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
    }
    for text in ["a'b", "a\\\\'b", "\"open", "\"open\\\"", "'open", "안\"녕"] {
        assert!(expand(text).unwrap_err().contains("while looking for matching"), "{text}");
    }
}

#[test]
fn variables_have_all_modifiers() {
    for (text, expected) in [
        ("$HOME/x", "/home/x"),
        ("${HOME}x", "/homex"),
        ("$home$NONE", ""),
        ("$.x$", "$.x$"),
        ("\\$HOME \\${HOME} '$HOME' \"$HOME\"", "$HOME ${HOME} $HOME /home"),
        ("\"'$HOME'\"", "'/home'"),
        ("$NAME!", "한국어!"),
        ("$1x$999aaa$001", "xaaa"),
        ("$@@ $? $$ $! $- $# $*", "@      "),
        ("${1:-b}${@:-c}${#:-d}${?:+e}${-}", "bcd"),
        ("${NONE:-d}${EMPTY:-d}${HOME:-d}", "dd/home"),
        ("${NONE-d}${EMPTY-d}${HOME-d}", "d/home"),
        ("${NONE:+p}${EMPTY:+p}${HOME:+p}", "p"),
        ("${NONE+p}${EMPTY+p}${HOME+p}", "pp"),
        ("${HOME?}${HOME:?no}${EMPTY?}", "/home/home"),
        ("${NONE:-$HOME}${NONE:-${ALSO:-deep}}", "/homedeep"),
        ("${HOME:+${HOME}:}x", "/home:x"),
        ("${NONE:-\\$HOME:}", "$HOME:"),
        ("${NONE:-\\${HOME}z}", "${HOMEz}"),
        ("${NONE:-a b}}", "a b}"),
        ("${NONE:-a {b}", "a {b"),
        ("${NONE:-'q }'}", "q }"),
        ("${FILE#*.}|${FILE##*.}|${FILE%.*}|${FILE%%.*}", "tar.gz|gz|dir/archive.tar|dir/archive"),
        ("${FILE#dir/}|${FILE#none}|${FILE%.gz}", "archive.tar.gz|dir/archive.tar.gz|dir/archive.tar"),
        ("${FILE#???}|${FILE%?}|${FILE##*}|${FILE%%*}", "/archive.tar.gz|dir/archive.tar.g||"),
        ("${X#a\\*}|${X%\\*c}|${X#a?}", "c|a|c"),
        (
            "${FILE/a/A}|${FILE//a/A}|${FILE/none/x}",
            "dir/Archive.tar.gz|dir/Archive.tAr.gz|dir/archive.tar.gz",
        ),
        (
            "${FILE/\\//-}|${FILE//[a]/x}|${FILE/./}",
            "dir-archive.tar.gz|dir/archive.tar.gz|dir/archivetar.gz",
        ),
        ("${FILE/a*v/$SHELL}|${FILE/${NONE:-dir}/x}", "dir/bashe.tar.gz|x/archive.tar.gz"),
        ("${NONE#x}${NONE/a/b}${NONE%%y}", ""),
        ("${NAME#한}", "국어"),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_no_substitution_is_refused() {
    for (text, problem) in [
        ("${", "syntax error: missing '}'"),
        ("${HOME", "syntax error: missing '}'"),
        ("${NONE:-x", "syntax error: missing '}'"),
        ("${NONE:-x ${HOME}", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{HOME}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${HOME:=x}", "unsupported modifier (:=) in substitution"),
        ("${HOME:#x}", "unsupported modifier (:#) in substitution"),
        ("${HOME/x}", "syntax error: missing '/' in ${}"),
        ("${HOME/x/y", "syntax error: missing '}'"),
        ("${HOME#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("${NONE?}", "NONE: is not allowed to be unset"),
        ("${NONE:?say why}", "NONE: say why"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
    ] {
        assert_eq!(expand(text), Err(format!("failed to process {text:?}: {problem}")), "{text}");
    }
}

#[test]
fn words_end_at_bare_spaces_only() {
    let words = |text: &str| Words::new('\\').expand(text, &vec!["P=80 443".to_owned()]).unwrap().words;
    assert_eq!(words("$P 'a b' c\\ d \"$P\"  e"), ["80", "443", "a b", "c d", "80 443", "e"]);
    assert_eq!(words("''"), Vec::<String>::new());
    assert_eq!(words("cat << EOF x<<-B"), ["cat", "<<EOF".replace("<<", "<< ").as_str(), "x<<-B"]);
}

#[test]
fn used_variables_are_told() {
    let made = Words::new('\\').expand("$HOME ${NONE:-$ALSO} '$NOT'", &environment()).unwrap();
    assert_eq!(made.found.into_iter().collect::<Vec<_>>(), ["HOME"]);
    assert_eq!(made.missing.into_iter().collect::<Vec<_>>(), ["ALSO", "NONE"]);
}

#[test]
fn ways_of_reading_differ() {
    let with = |words: Words, text: &str| words.expand(text, &environment()).unwrap().text;
    assert_eq!(with(Words::new('`'), "C:\\dir `$HOME"), "C:\\dir $HOME");
    assert_eq!(with(Words::document(), "it's \"$HOME\" \\$HOME"), "it's \"/home\" $HOME");
    let kept = Words { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Words::new('\\') };
    let text = "'a' \"b\\t\" \\$c $d ${e} ${f:-g} ${h#i} ${j/k/l}";
    assert_eq!(with(kept, text), text);
}

#[test]
fn results_are_bounded() {
    let long = [format!("A={}", "x".repeat(LIMIT / 2))];
    assert!(
        Words::new('\\').expand("$A$A$A", &long.to_vec()).unwrap_err().to_string().contains("longer than")
    );
    assert!(Words::new('\\').expand("${A//x/yyy}", &long.to_vec()).is_err());
    assert!(Words::new('\\').expand("\"$A$A$A\"", &long.to_vec()).is_err());
    let deep = "${A:-".repeat(5000);
    assert!(expand(&deep).unwrap_err().contains("nested too deeply"));
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "[ab${}:#%/?*+'\"\\\\ <-]{0,24}", quotes: bool, escapes: bool, unset: bool) {
        let words = Words { keep_quotes: quotes, keep_escapes: escapes, keep_unset: unset, ..Words::new('\\') };
        let _ = words.expand(&text, &vec!["a=b*".to_owned(), "b=".to_owned()]);
    }
}
