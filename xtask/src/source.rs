//! Reading Rust sources by their tokens, so that comments and strings cannot be mistaken for code.

use std::str::FromStr as _;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::workspace::File;

/// The tokens of a file.
pub(crate) fn tokens(file: &File) -> Result<Vec<TokenTree>> {
    let stream = TokenStream::from_str(&file.text)
        .map_err(|error| anyhow!("{}:{}: {error}", file.path, error.span().start().line))?;
    Ok(stream.into_iter().collect())
}

/// A string constant: `/// docs` `pub const NAME: &str = "text";`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StringConst {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Its documentation, in one paragraph.
    pub docs: String,
}

/// Every string constant at the top level.
pub(crate) fn string_consts(tokens: &[TokenTree]) -> Vec<StringConst> {
    let consts = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| is_word(token, "const"));
    consts
        .filter_map(|(index, _)| {
            let name = word(tokens.get(index + 1)?)?;
            let type_is_str = is_word(tokens.get(index + 4)?, "str");
            let value = type_is_str.then(|| string(tokens.get(index + 6)?)).flatten()?;
            let visible = index
                .checked_sub(1)
                .is_some_and(|before| is_word(&tokens[before], "pub"));
            let docs = docs_before(tokens, if visible { index - 1 } else { index });
            Some(StringConst { name, value, docs })
        })
        .collect()
}

/// A struct declared by `abi_struct!`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AbiStruct {
    /// Its name.
    pub name: String,
    /// Its size in octets.
    pub size: String,
    /// First paragraph of its documentation.
    pub docs: String,
    /// Name, type and documentation of each field, in order.
    pub fields: Vec<(String, String, String)>,
}

/// Every struct declared by `abi_struct!` at the top level.
pub(crate) fn abi_structs(tokens: &[TokenTree]) -> Vec<AbiStruct> {
    let calls = tokens
        .windows(3)
        .filter(|three| is_word(&three[0], "abi_struct") && is_punct(&three[1], '!'));
    calls
        .filter_map(|three| abi_struct(&braced(&three[2])?))
        .collect()
}

fn abi_struct(tokens: &[TokenTree]) -> Option<AbiStruct> {
    let at = tokens.iter().position(|token| is_word(token, "struct"))?;
    let name = word(tokens.get(at + 1)?)?;
    let size = tokens.get(at + 3)?.to_string();
    let body = braced(tokens.last()?)?;
    Some(AbiStruct {
        name,
        size,
        docs: docs_before(tokens, at.saturating_sub(1)),
        fields: fields(&body),
    })
}

fn fields(body: &[TokenTree]) -> Vec<(String, String, String)> {
    let names = body
        .windows(2)
        .enumerate()
        .filter(|(_, two)| is_word(&two[0], "pub"));
    names
        .filter_map(|(index, two)| {
            let name = word(&two[1])?;
            let kind = body
                .get(index + 3..)?
                .iter()
                .take_while(|token| !is_punct(token, ','));
            let kind = kind.map(ToString::to_string).collect::<String>();
            Some((name, kind, docs_before(body, index)))
        })
        .collect()
}

/// Lines of each `unsafe` that opens a block, function, implementation or trait. `#[unsafe(…)]` attributes are
/// not meant: they mark a linkage, not an argument about memory.
pub(crate) fn unsafe_lines(tokens: &[TokenTree]) -> Vec<usize> {
    let mut lines = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => lines.extend(unsafe_lines(&trees(group.stream()))),
            TokenTree::Ident(ident) if ident == "unsafe" => {
                let attribute = matches!(
                    tokens.get(index + 1),
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
                );
                if !attribute {
                    lines.push(ident.span().start().line);
                }
            }
            _ => {}
        }
    }
    lines
}

/// The documentation that stands before the item at `index`, its lines joined.
fn docs_before(tokens: &[TokenTree], index: usize) -> String {
    let mut lines = Vec::new();
    let mut end = index;
    while end >= 2 && is_punct(&tokens[end - 2], '#') {
        if let Some(line) = bracketed(&tokens[end - 1]).as_deref().and_then(doc_line) {
            lines.push(line);
        }
        end -= 2;
    }
    lines.reverse();
    let paragraph: Vec<String> = lines.into_iter().map(|line| line.trim().to_owned()).collect();
    paragraph
        .split(String::is_empty)
        .next()
        .unwrap_or_default()
        .join(" ")
}

fn doc_line(attribute: &[TokenTree]) -> Option<String> {
    match attribute {
        [name, _equals, text] if is_word(name, "doc") => string(text),
        _ => None,
    }
}

fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else {
        return None;
    };
    let text = literal.to_string();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(
        inner
            .replace("\\\"", "\"")
            .replace("\\'", "'")
            .replace("\\\\", "\\"),
    )
}

fn word(token: &TokenTree) -> Option<String> {
    let TokenTree::Ident(ident) = token else {
        return None;
    };
    Some(ident.to_string())
}

fn is_word(token: &TokenTree, text: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == text)
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c && punct.spacing() == Spacing::Alone)
}

fn bracketed(token: &TokenTree) -> Option<Vec<TokenTree>> {
    group(token, Delimiter::Bracket)
}

fn braced(token: &TokenTree) -> Option<Vec<TokenTree>> {
    group(token, Delimiter::Brace)
}

fn group(token: &TokenTree, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match token {
        TokenTree::Group(group) if group.delimiter() == delimiter => Some(trees(group.stream())),
        _ => None,
    }
}

fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<TokenTree> {
        tokens(&File {
            path: "x.rs".to_owned(),
            text: text.to_owned(),
        })
        .unwrap()
    }

    #[test]
    fn a_constant_brings_its_documentation() {
        let tokens = read(
            "//! File.\n\n/// Hash: a\n/// → b.\n///\n/// More.\npub const MAP_A: &str = \"TL_A\";\npub const N: u32 = 1;",
        );
        let expected = StringConst {
            name: "MAP_A".into(),
            value: "TL_A".into(),
            docs: "Hash: a → b.".into(),
        };
        assert_eq!(string_consts(&tokens), [expected]);
    }

    #[test]
    fn an_abi_struct_is_read_with_its_fields() {
        let tokens = read(
            "abi_struct! { /// Why.\n #[derive(Default)] pub struct P = 20 { /// A.\n pub a: u32, pub b: [u8; 16], } }",
        );
        let [parsed] = &abi_structs(&tokens)[..] else {
            panic!("one struct")
        };
        assert_eq!(
            (parsed.name.as_str(), parsed.size.as_str(), parsed.docs.as_str()),
            ("P", "20", "Why.")
        );
        assert_eq!(parsed.fields[0], ("a".into(), "u32".into(), "A.".into()));
        assert_eq!(parsed.fields[1].1.replace(' ', ""), "[u8;16]");
    }

    #[test]
    fn unsafe_in_comments_strings_and_attributes_is_not_unsafe_code() {
        let text = "// unsafe {}\n#[unsafe(no_mangle)]\nstatic A: &str = \"unsafe {}\";\nfn f() { unsafe { g() } }\nunsafe impl T for U {}";
        assert_eq!(unsafe_lines(&read(text)), [4, 5]);
    }
}
