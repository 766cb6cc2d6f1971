//! `tieline apply`: objects from YAML.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use tieline_model::{NodeName, Object, yaml};
use tieline_proto::tieline::admin::v1::{self as proto, ApplyAction, ApplyRequest, ApplyResult};

use crate::{
    args::Global,
    daemon::host_name,
    error::Failure,
    exit::Exit,
    output::{self, Format, Row},
    view::MoveView,
};

/// Flags of `apply`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline apply -f gold-network.yaml
  tieline apply -f base.yaml -f extra.yaml --dry-run
  tieline get networkservices -o yaml | sed 's/1500/1400/' | tieline apply -f -")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    sources: Sources,
    /// Say what would happen, also to live connections, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where objects are read from.
#[derive(Args, Debug)]
pub(crate) struct Sources {
    /// A file of objects, or - for standard input; may be repeated. All objects are applied, or none
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where endpoints are that name no node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

/// What became of objects and of live connections, or would.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OutcomeView {
    objects: Vec<ResultView>,
    pub(crate) moves: Vec<MoveView>,
    /// How many connections lead elsewhere in all.
    moved: u32,
}

/// What became of one object.
#[derive(Clone, Debug, Serialize)]
struct ResultView {
    kind: String,
    name: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl From<ApplyResult> for ResultView {
    fn from(result: ApplyResult) -> Self {
        let action = match result.action() {
            ApplyAction::Unspecified => "unknown",
            ApplyAction::Created => "created",
            ApplyAction::Changed => "changed",
            ApplyAction::Unchanged => "unchanged",
        };
        Self {
            kind: result.kind,
            name: result.name,
            action,
            warnings: result.warnings,
        }
    }
}

impl Row for ResultView {
    const HEADINGS: &'static [&'static str] = &["KIND", "NAME", "RESULT"];

    fn cells(&self) -> Vec<String> {
        vec![self.kind.clone(), self.name.clone(), self.action.to_owned()]
    }
}

/// Applies them.
pub(crate) async fn run(global: &Global, args: &ApplyArgs) -> Result<Exit, Failure> {
    let ApplyArgs { sources, dry_run } = args;
    let outcome = carry_out(global, sources, *dry_run).await?;
    outcome.warn()?;
    if global.output == Format::Table {
        output::list(global.output, &outcome.objects, "nothing to apply")?;
        if !outcome.moves.is_empty() {
            output::text("\n")?;
            output::list(global.output, &outcome.moves, "")?;
            outcome.note_further()?;
        }
    } else {
        output::object(global.output, &outcome, String::new)?;
    }
    if *dry_run {
        output::note("dry run: nothing was changed")?;
    }
    Ok(Exit::Ok)
}

/// Sends the objects to control.
pub(crate) async fn carry_out(
    global: &Global,
    sources: &Sources,
    dry_run: bool,
) -> Result<OutcomeView, Failure> {
    let objects = read_all(&sources.files, sources.node.as_ref())?;
    let request = ApplyRequest {
        objects: objects.iter().map(proto::Object::from).collect(),
        dry_run,
    };
    let answer = super::admin(global).await?.apply(request).await?.into_inner();
    Ok(OutcomeView {
        objects: answer.results.into_iter().map(ResultView::from).collect(),
        moves: answer.moves.into_iter().map(MoveView::from).collect(),
        moved: answer.moved,
    })
}

impl OutcomeView {
    /// Tells what the operator should know although it was accepted.
    pub(crate) fn warn(&self) -> Result<(), Failure> {
        for one in &self.objects {
            for warning in &one.warnings {
                output::note(&format!("warning: {} {}: {warning}", one.kind, one.name))?;
            }
        }
        Ok(())
    }

    /// Tells how many moves are not listed.
    pub(crate) fn note_further(&self) -> Result<(), Failure> {
        let listed = u32::try_from(self.moves.len()).unwrap_or(u32::MAX);
        match self.moved.saturating_sub(listed) {
            0 => Ok(()),
            further => output::note(&format!("and {further} connections more")),
        }
    }
}

/// Every object of these files, in their order. Endpoints that name no node are at `node`, or here.
pub(crate) fn read_all(files: &[PathBuf], node: Option<&NodeName>) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let here = host_name().parse().ok();
    let node = node.or(here.as_ref());
    for path in files {
        let text = read(path).map_err(|source| Failure::Read {
            path: path.clone(),
            source,
        })?;
        let parsed = yaml::parse(&text, node);
        objects.extend(parsed.map_err(|source| Failure::File {
            path: path.clone(),
            source: Box::new(source),
        })?);
    }
    Ok(objects)
}

fn read(path: &Path) -> Result<String, io::Error> {
    if path != Path::new("-") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Failure {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        fs::write(&path, text).unwrap();
        read_all(&[path], None).unwrap_err()
    }

    #[test]
    fn an_unknown_field_is_refused_with_file_and_line() {
        let failure = refused(
            "apiVersion: tieline.io/v1\nkind: NetworkService\nmetadata:\n  name: a\nspec:\n  colour: red\n",
        );
        let text = failure.to_string();
        assert!(
            text.contains("x.yaml: line 6") && text.contains("colour"),
            "{text}"
        );
        assert_eq!(failure.exit(), Exit::Refused);
    }

    #[test]
    fn a_bad_value_is_refused_with_field_value_and_rule() {
        let failure = refused(
            "apiVersion: tieline.io/v1\nkind: NetworkService\nmetadata: {name: a}\nspec: {prefixes: [10.0.0.0/40]}\n",
        );
        let text = failure.to_string();
        assert!(
            text.contains("prefixes") && text.contains("10.0.0.0/40"),
            "{text}"
        );
        assert_eq!(failure.exit(), Exit::Refused);
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        let failure = read_all(&[PathBuf::from("/nonexistent/x.yaml")], None).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert!(failure.to_string().contains("/nonexistent/x.yaml"), "{failure}");
    }
}
