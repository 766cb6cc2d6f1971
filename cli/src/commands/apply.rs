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
    output::{self, Row},
};

/// Flags of `apply`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tieline apply -f gold-network.yaml
  tieline apply -f base.yaml -f extra.yaml --dry-run
  tieline get networkservices -o yaml | sed 's/1500/1400/' | tieline apply -f -")]
pub(crate) struct ApplyArgs {
    /// A file of objects, or - for standard input; may be repeated. All objects are applied, or none
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where endpoints are that name no node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
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
    let ApplyArgs { files, node, dry_run } = args;
    let objects = read_all(files, node.as_ref())?
        .iter()
        .map(proto::Object::from)
        .collect();
    let request = ApplyRequest {
        objects,
        dry_run: *dry_run,
    };
    let answer = super::admin(global).await?.apply(request).await?.into_inner();
    let views = answer
        .results
        .into_iter()
        .map(ResultView::from)
        .collect::<Vec<_>>();
    for view in &views {
        for warning in &view.warnings {
            output::note(&format!("warning: {} {}: {warning}", view.kind, view.name))?;
        }
    }
    output::list(global.output, &views, "nothing to apply")?;
    if *dry_run {
        output::note("dry run: nothing was changed")?;
    }
    Ok(Exit::Ok)
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
