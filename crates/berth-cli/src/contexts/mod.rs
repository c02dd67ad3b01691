//! Contexts: daemons that have names.

pub mod archive;
pub mod endpoint;
mod list;
pub mod store;
mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, many, on, one, operand, operands, switch};
use crate::format::objects;
use crate::session::terminal;

use archive::Bundle;
use endpoint::Pairs;
use store::{DEFAULT, DOCKER, Metadata, Store, TlsData, check_name};

/// The commands of the group `context`.
pub fn group_commands() -> Vec<Command> {
    let endpoint = || {
        many("docker", "KEY=VALUE,...")
            .value_parser(endpoint::pairs)
            .help("The daemon: host, ca, cert, key, skip-tls-verify, or from another context")
    };
    let description = || one("description", "TEXT").help("Description of the context");
    let format = || one("format", "TEMPLATE").help("Show by a Go template, or json");
    vec![
        Command::new("create")
            .about("Creates a context")
            .arg(description())
            .arg(endpoint())
            .arg(one("from", "CONTEXT").help("Copy a context"))
            .arg(operand("context")),
        Command::new("export").about("Writes a context to a tar archive").arg(operand("context")).arg(
            Arg::new("file").help("The archive, - for standard output; otherwise CONTEXT.dockercontext"),
        ),
        Command::new("import")
            .about("Reads a context from a tar or zip archive")
            .arg(operand("context"))
            .arg(operand("file").help("The archive, or - for standard input")),
        Command::new("inspect")
            .about("Shows all there is to know about contexts")
            .arg(format().short('f'))
            .arg(Arg::new("context").num_args(0..).help("Contexts; without any, the current one")),
        Command::new("ls")
            .alias("list")
            .about("Lists contexts")
            .arg(format())
            .arg(switch("quiet").short('q').help("Show names only")),
        Command::new("rm")
            .alias("remove")
            .about("Removes contexts")
            .arg(switch("force").short('f').help("Also the one in use"))
            .arg(operands("context")),
        Command::new("show").about("Shows the name of the current context"),
        Command::new("update")
            .about("Changes a context")
            .arg(description())
            .arg(endpoint())
            .arg(operand("context")),
        Command::new("use").about("Sets the current context").arg(operand("context")),
    ]
}

/// Runs one of them.
pub fn run(context: &mut Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "create" => create(context, matches),
        "export" => export(context, matches),
        "import" => import(context, matches),
        "inspect" => inspect(context, matches),
        "ls" => list::run(context, matches),
        "rm" => remove(context, matches),
        "show" => {
            outln!("{}", context.name());
            Ok(())
        }
        "update" => update(context, matches),
        _ => make_current(context, matches),
    }
}

/// A context, also the one that flags and environment make.
fn look_up(context: &Context, name: &str) -> Outcome<Metadata> {
    if name != DEFAULT {
        return Ok(context.store().get(name)?);
    }
    let mut found = Metadata { name: DEFAULT.to_owned(), ..Metadata::default() };
    found.set_docker(&context.default_endpoint()?);
    Ok(found)
}

fn certificates(context: &Context, name: &str) -> Outcome<TlsData> {
    if name != DEFAULT {
        return Ok(context.store().tls_data(name)?);
    }
    let files = context.default_certificates()?;
    Ok(if files.is_empty() { TlsData::new() } else { TlsData::from([(DOCKER.to_owned(), files)]) })
}

/// All pairs that `--docker` was given, the last of each key; none if it was not given.
fn docker_flags(matches: &ArgMatches) -> Option<BTreeMap<String, String>> {
    let given = matches.get_many::<Pairs>("docker")?;
    Some(given.flat_map(|pairs| pairs.0.iter().cloned()).collect())
}

fn check_new(store: &Store, name: &str) -> Outcome {
    check_name(name)?;
    match store.get(name) {
        Ok(_) => Err(Failure::new(format!("context {name:?} already exists"))),
        Err(store::StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(Failure::new(format!("error while getting existing contexts: {error}"))),
    }
}

/// Writes a context whole, certificates first: whoever finds it can use it.
fn keep(store: &Store, context: &Metadata, tls: &TlsData) -> Outcome {
    check_name(&context.name)?;
    store.put_tls(&context.name, tls)?;
    Ok(store.put(context)?)
}

fn create(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "context").unwrap_or_default();
    let store = context.store();
    check_new(&store, name)?;
    let description = flags::text(matches, "description").unwrap_or_default();
    let from = flags::text(matches, "from").filter(|from| !from.is_empty());
    let (mut made, tls) = match (from, docker_flags(matches)) {
        (Some(_), Some(given)) if !given.is_empty() => {
            return Err(Failure::new("cannot use --docker flag when --from is set"));
        }
        (None, Some(given)) => {
            let (endpoint, files) = read_endpoint(context, &given)?;
            let mut made = Metadata::default();
            made.set_docker(&endpoint);
            (made, TlsData::from([(DOCKER.to_owned(), files)]))
        }
        (from, _) => {
            let from = from.unwrap_or_else(|| context.name());
            (look_up(context, from)?, certificates(context, from)?)
        }
    };
    made.describe(description);
    name.clone_into(&mut made.name);
    keep(&store, &made, &tls)?;
    told(name, "created")
}

fn read_endpoint(
    context: &Context,
    given: &BTreeMap<String, String>,
) -> Outcome<(endpoint::Endpoint, BTreeMap<String, Vec<u8>>)> {
    endpoint::read(&context.store(), |name| look_up(context, name), given)
        .map_err(|failure| Failure::new(format!("unable to create docker endpoint config: {failure}")))
}

/// Says on both outputs what was done, as Docker's client does.
fn told(name: &str, done: &str) -> Outcome {
    outln!("{name}");
    errln!("Successfully {done} context {name:?}");
    Ok(())
}

fn update(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "context").unwrap_or_default();
    let store = context.store();
    check_name(name)?;
    let mut found = store.get(name)?;
    found.describe(flags::text(matches, "description").unwrap_or_default());
    name.clone_into(&mut found.name);
    if let Some(given) = docker_flags(matches) {
        let (endpoint, files) = read_endpoint(context, &given)?;
        found.set_docker(&endpoint);
        store.put_endpoint_tls(name, DOCKER, &files)?;
    }
    store.put(&found)?;
    told(name, "updated")
}

fn export(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "context").unwrap_or_default();
    if name != DEFAULT {
        check_name(name)?;
    }
    let to = flags::text(matches, "file").map_or_else(|| format!("{name}.dockercontext"), str::to_owned);
    if to == "-" && terminal::is_output() {
        return Err(Failure::new("cowardly refusing to export to a terminal, specify a file path"));
    }
    let bundle = Bundle { context: look_up(context, name)?, tls: certificates(context, name)? };
    let bytes = archive::pack(&bundle)?;
    if to == "-" {
        return std::io::stdout().write_all(&bytes).map_err(|error| Failure::io("write", &error));
    }
    let failed = |error: &std::io::Error| Failure::io(format!("open {to}"), error);
    let mut options = File::options();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&to).map_err(|error| failed(&error))?;
    file.write_all(&bytes).map_err(|error| failed(&error))?;
    errln!("Written file {to:?}");
    Ok(())
}

fn import(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "context").unwrap_or_default();
    let from = flags::text(matches, "file").unwrap_or_default();
    let store = context.store();
    check_new(&store, name)?;
    let bundle = match from {
        "-" => archive::unpack(std::io::stdin().lock())?,
        path => {
            let file = File::open(path).map_err(|error| Failure::io(format!("open {path}"), &error))?;
            archive::unpack(file)?
        }
    };
    let made = Metadata { name: name.to_owned(), ..bundle.context };
    keep(&store, &made, &bundle.tls)?;
    told(name, "imported")
}

/// A context as `inspect` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    #[serde(flatten)]
    context: Metadata,
    #[serde(rename = "TLSMaterial")]
    tls_material: BTreeMap<String, Vec<String>>,
    storage: Storage,
}

#[derive(Serialize)]
struct Storage {
    #[serde(rename = "MetadataPath")]
    metadata: String,
    #[serde(rename = "TLSPath")]
    tls: String,
}

fn inspect(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut names = flags::list(matches, "context");
    if names.is_empty() {
        names.push(context.name().to_owned());
    }
    let (mut found, mut failures) = (Vec::new(), Failures::default());
    for name in names {
        match shown(context, &name) {
            Ok(context) => found.push(context),
            Err(failure) => failures.push(failure),
        }
    }
    out!("{}", objects::show(&found, flags::text(matches, "format"))?);
    failures.finish()
}

fn shown(context: &Context, name: &str) -> Outcome<Shown> {
    let store = context.store();
    let found = look_up(context, name)?;
    let files = certificates(context, name)?;
    let place = |path: &Path| match name {
        DEFAULT => "<IN MEMORY>".to_owned(),
        _ => path.display().to_string(),
    };
    Ok(Shown {
        context: found,
        tls_material: files
            .into_iter()
            .map(|(endpoint, files)| (endpoint, files.into_keys().collect()))
            .collect(),
        storage: Storage {
            metadata: place(&store.meta_directory(name)),
            tls: place(&store.tls_directory(name)),
        },
    })
}

fn remove(context: &mut Context, matches: &ArgMatches) -> Outcome {
    let force = on(matches, "force");
    let mut failures = Failures::default();
    for name in flags::list(matches, "context") {
        match remove_one(context, &name, force) {
            Ok(()) => outln!("{name}"),
            Err(failure) => failures.push(failure),
        }
    }
    failures.finish()
}

fn remove_one(context: &mut Context, name: &str, force: bool) -> Outcome {
    if name == DEFAULT {
        return Err(Failure::new("context \"default\" cannot be removed"));
    }
    let store = context.store();
    if name == context.name() {
        if !force {
            return Err(Failure::new(format!("context {name:?} is in use, set -f flag to force remove")));
        }
        context.config.set_current_context("")?;
    }
    if !force && !store.has(name) {
        return Err(Failure::new(format!("context {name:?} does not exist")));
    }
    Ok(store.remove(name)?)
}

fn make_current(context: &mut Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "context").unwrap_or_default();
    let wanted = if name == DEFAULT { "" } else { name };
    if name != DEFAULT {
        check_name(name)?;
        context.store().get(name)?;
    }
    // A file that needs no change is not made either.
    if context.config.settings.current_context != wanted {
        context.config.set_current_context(wanted)?;
    }
    outln!("{name}");
    errln!("Current context is now {name:?}");
    if let Some(variable) = context.overriding().filter(|_| name != DEFAULT) {
        errln!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset {variable} environment variable."
        );
    }
    Ok(())
}
