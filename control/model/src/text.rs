//! One way to be text: read by the type's `parse`, written by its `Display`.

/// Gives a type that has `parse(field, text)` and `Display` the conversions from and to text, also for serde. Errors
/// of texts that stand alone name `$field`.
macro_rules! text_form {
    ($name:ident, $field:literal) => {
        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(text: &str) -> Result<Self, $crate::Invalid> {
                Self::parse($field, text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::Invalid;

            fn try_from(text: String) -> Result<Self, $crate::Invalid> {
                Self::parse($field, &text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// Gives an enum with `ALL` and `as_str` the word forms: `parse(field, text)`, `Display`, and those of [`text_form`].
macro_rules! word_form {
    ($name:ident, $field:literal, $what:literal) => {
        impl $name {
            /// Reads the word; an error names `field` and lists the words.
            pub fn parse(field: &str, text: &str) -> Result<Self, $crate::Invalid> {
                Self::ALL
                    .into_iter()
                    .find(|one| one.as_str() == text)
                    .ok_or_else(|| {
                        $crate::Invalid::new(
                            field,
                            text,
                            format!(concat!($what, " is one of {}"), Self::list()),
                        )
                    })
            }

            /// The words, for messages.
            pub(crate) fn list() -> String {
                Self::ALL.map(Self::as_str).join(", ")
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::text::text_form!($name, $field);
    };
}

pub(crate) use {text_form, word_form};
