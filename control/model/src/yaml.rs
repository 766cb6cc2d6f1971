//! Objects in Kubernetes-style YAML files, read strictly: what is not known is an error with its line.
//!
//! A file holds documents of kind `NetworkService`, `NetworkServiceEndpoint` and `NetworkServiceWiring`, `apiVersion:
//! tieline.io/v1` or NSM's `networkservicemesh.io/v1`, fields in camelCase or in NSM's snake_case. `metadata.namespace` and `metadata.labels`
//! are read, so that files made for Kubernetes work, and mean nothing here.

mod form;
#[cfg(test)]
mod tests;

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Invalid, NodeName, Object, ObjectKind,
    limits::{MAX_FILE_BYTES, MAX_OBJECTS},
};
use form::{Document, EndpointSpec, ServiceSpec, WiringSpec};

/// The `apiVersion` that is written.
pub const API_VERSION: &str = "tieline.io/v1";
/// NSM's `apiVersion`, read as well.
pub const NSM_API_VERSION: &str = "networkservicemesh.io/v1";

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not the YAML of a known object: bad syntax, an unknown or repeated field, a wrong type.
    #[error("line {line}, column {column}: {message}")]
    Shape {
        /// Line of the file, from 1.
        line: usize,
        /// Column of the line, from 1.
        column: usize,
        /// What is wrong, and what is known instead.
        message: String,
    },
    /// A value breaks a rule.
    #[error("the object at line {line} ({object}): {invalid}")]
    Value {
        /// The line that the object begins at, from 1.
        line: usize,
        /// Kind and name of the object, as far as they are known.
        object: String,
        /// The field, the value and the rule.
        invalid: Invalid,
    },
    /// The file is too large.
    #[error("the file has {bytes} bytes, more than {MAX_FILE_BYTES}: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// There are too many objects in it.
    #[error("the file has more than {MAX_OBJECTS} objects: split it")]
    TooMany,
    /// There is nothing in it.
    #[error("there is no object in the file: write apiVersion, kind, metadata and spec")]
    Empty,
    /// An object cannot be written.
    #[error("{object} cannot be written as YAML: {message}")]
    Unwritable {
        /// Kind and name of the object.
        object: String,
        /// What the writer says.
        message: String,
    },
}

/// Reads every document of `text`. `node` is where endpoints are that name no node.
pub fn parse(text: &str, node: Option<&NodeName>) -> Result<Vec<Object>, YamlError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(YamlError::TooLarge { bytes: text.len() });
    }
    let mut objects = Vec::new();
    for chunk in chunks(text) {
        objects.extend(chunk.object(node)?);
        if objects.len() > MAX_OBJECTS {
            return Err(YamlError::TooMany);
        }
    }
    if objects.is_empty() {
        Err(YamlError::Empty)
    } else {
        Ok(objects)
    }
}

/// Writes `objects` in the form that [`parse`] reads, one document each. Lease and owner of an endpoint are not in it.
pub fn render(objects: &[Object]) -> Result<String, YamlError> {
    let mut text = String::new();
    for object in objects {
        let written = match object {
            Object::NetworkService(service) => {
                serde_yaml_ng::to_string(&Document::<ServiceSpec>::from(service))
            }
            Object::NetworkServiceEndpoint(endpoint) => {
                serde_yaml_ng::to_string(&Document::<EndpointSpec>::from(endpoint))
            }
            Object::NetworkServiceWiring(wiring) => {
                serde_yaml_ng::to_string(&Document::<WiringSpec>::from(wiring))
            }
        };
        let document = written.map_err(|e| YamlError::Unwritable {
            object: format!("{} {}", object.kind(), object.name()),
            message: e.to_string(),
        })?;
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&document);
    }
    Ok(text)
}

/// One document of a file.
struct Chunk {
    /// Lines of the file before it.
    skipped: usize,
    text: String,
}

/// Splits at the lines that begin with `---`. What follows on such a line keeps its column.
fn chunks(text: &str) -> Vec<Chunk> {
    let mut chunks = vec![Chunk {
        skipped: 0,
        text: String::new(),
    }];
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.trim_start() != *rest || rest.is_empty());
        if let Some(rest) = rest {
            chunks.push(Chunk {
                skipped: i,
                text: format!("   {rest}"),
            });
        } else if let Some(last) = chunks.last_mut() {
            last.text.push_str(line);
        }
    }
    chunks
}

/// What says how to read the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

impl Chunk {
    fn object(&self, node: Option<&NodeName>) -> Result<Option<Object>, YamlError> {
        let Some(header) = self.read::<Option<Header>>()? else {
            return Ok(None);
        };
        let known = [API_VERSION, NSM_API_VERSION];
        let version = header.api_version.unwrap_or_default();
        if !known.contains(&version.as_str()) {
            let rule = format!("write {}", known.join(" or "));
            return Err(self.value("object", Invalid::new("apiVersion", version, rule)));
        }
        let kind = header.kind.unwrap_or_default();
        let kind: ObjectKind = kind.parse().map_err(|e| self.value("object", e))?;
        match kind {
            ObjectKind::NetworkService => {
                let document: Document<ServiceSpec> = self.read()?;
                let object = format!("{kind} {}", document.name());
                document
                    .service()
                    .map(|service| Some(Object::NetworkService(service)))
                    .map_err(|e| self.value(&object, e))
            }
            ObjectKind::NetworkServiceEndpoint => {
                let document: Document<EndpointSpec> = self.read()?;
                let object = format!("{kind} {}", document.name());
                let endpoint = document.endpoint(node);
                endpoint
                    .map(|one| Some(Object::NetworkServiceEndpoint(one)))
                    .map_err(|e| self.value(&object, e))
            }
            ObjectKind::NetworkServiceWiring => {
                let document: Document<WiringSpec> = self.read()?;
                let object = format!("{kind} {}", document.name());
                let wiring = document.wiring();
                wiring
                    .map(|one| Some(Object::NetworkServiceWiring(one)))
                    .map_err(|e| self.value(&object, e))
            }
        }
    }

    fn value(&self, object: &str, invalid: Invalid) -> YamlError {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let line = self.skipped + self.text.lines().take_while(blank).count() + 1;
        YamlError::Value {
            line,
            object: object.to_owned(),
            invalid,
        }
    }

    /// Reads the document as a `T`. Only when that fails is it read again at its place in the file, so that every line
    /// in the message is one of the file.
    fn read<T: DeserializeOwned>(&self) -> Result<T, YamlError> {
        serde_yaml_ng::from_str(&self.text).or_else(|_| {
            let placed = "\n".repeat(self.skipped) + &self.text;
            serde_yaml_ng::from_str(&placed).map_err(|e| self.shape(&e))
        })
    }

    fn shape(&self, error: &serde_yaml_ng::Error) -> YamlError {
        let text = error.to_string();
        let (line, column) = error
            .location()
            .map_or((self.skipped + 1, 1), |at| (at.line(), at.column()));
        let place = format!(" at line {line} column {column}");
        let message = text.strip_suffix(&place).unwrap_or(&text).to_owned();
        YamlError::Shape {
            line,
            column,
            message,
        }
    }
}
