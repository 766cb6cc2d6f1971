//! Names and ids.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    limits::{MAX_ID_LEN, MAX_NAME_LEN, MAX_NAME_PART_LEN},
};

const NAME_RULE: &str = "a name is parts of a-z, 0-9 and \"-\", joined by \".\"; a part begins and ends with a \
                         letter or digit and has at most 63 characters, the name at most 253";

/// A name, or a name in another registry domain: `NAME@DOMAIN`.
fn check_name(field: &str, value: &str) -> Result<(), Invalid> {
    let (name, domain) = match value.split_once('@') {
        None => (value, None),
        Some((_, "")) => {
            let rule = "the registry domain after \"@\" is empty: leave out the \"@\"";
            return Err(Invalid::new(field, value, rule));
        }
        Some((name, domain)) => (name, Some(domain)),
    };
    let whole = |invalid: Invalid| Invalid {
        value: value.to_owned(),
        ..invalid
    };
    check_dns_name(field, name).map_err(whole)?;
    domain
        .map_or(Ok(()), |domain| check_dns_name(field, domain))
        .map_err(|invalid| Invalid {
            rule: format!(
                "after \"@\" comes a registry domain, whose {}",
                NAME_RULE.replacen("a name", "name", 1)
            ),
            ..whole(invalid)
        })
}

fn check_dns_name(field: &str, value: &str) -> Result<(), Invalid> {
    let part_is_good = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.len() <= MAX_NAME_PART_LEN
            && bytes.first().is_some_and(|b| inner(*b))
            && bytes.last().is_some_and(|b| inner(*b))
            && bytes.iter().all(|b| inner(*b) || *b == b'-')
    };
    if value.is_empty() {
        return Err(Invalid::new(field, value, "a name is required"));
    }
    if value.len() > MAX_NAME_LEN || !value.split('.').all(part_is_good) {
        return Err(Invalid::new(field, value, NAME_RULE));
    }
    Ok(())
}

fn check_id(field: &str, value: &str) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::new(
            field,
            value,
            "an id is required: choose any, for example a UUID",
        ));
    }
    if value.len() > MAX_ID_LEN || !value.bytes().all(|b| b.is_ascii_graphic()) {
        let rule = format!("an id has at most {MAX_ID_LEN} printable ASCII characters and no spaces");
        return Err(Invalid::new(field, value, rule));
    }
    Ok(())
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `value`; an error names `field`.
            pub fn parse(field: &str, value: &str) -> Result<Self, Invalid> {
                $check(field, value)?;
                Ok(Self(value.to_owned()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        crate::text::text_form!($name, $field);

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! in_domains {
    ($($name:ident),*) => {$(
        impl $name {
            /// The registry domain that it is in; `None`: this one.
            #[must_use]
            pub fn domain(&self) -> Option<&str> {
                self.0.split_once('@').map(|(_, domain)| domain)
            }

            /// The name in its own domain.
            #[must_use]
            pub fn local(&self) -> Self {
                Self(self.0.split('@').next().unwrap_or_default().to_owned())
            }

            /// The name of what is called so in `domain`.
            #[must_use]
            pub fn in_domain(&self, domain: &RegistryDomain) -> Self {
                Self(format!("{}@{domain}", self.local()))
            }
        }
    )*};
}

in_domains!(ServiceName, EndpointName, NodeName, WiringName);

text_type!(
    /// Name of a registry domain: another control and what is registered there.
    RegistryDomain, "domain", check_dns_name
);
text_type!(
    /// Name of a NetworkService, `NAME` or `NAME@DOMAIN`.
    ServiceName, "network_service", check_name
);
text_type!(
    /// Name of a NetworkServiceEndpoint.
    EndpointName, "network_service_endpoint_name", check_name
);
text_type!(
    /// Name of a node.
    NodeName, "node", check_name
);
text_type!(
    /// Name of a NetworkServiceWiring.
    WiringName, "network_service_wiring", check_name
);
text_type!(
    /// A domain of the DNS.
    DomainName, "search_domains", check_dns_name
);
text_type!(
    /// Id of a connection, chosen by its client: at most 128 printable ASCII characters.
    ConnectionId, "connection.id", check_id
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns_label_syntax() {
        for good in ["a", "gold-network", "a.b.c", "0", "x".repeat(63).as_str()] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        let long = ["x".repeat(63).as_str(); 4].join(".");
        for bad in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".",
            "a b",
            "ä",
            "x".repeat(64).as_str(),
            long.as_str(),
        ] {
            let error = bad.parse::<ServiceName>().unwrap_err();
            assert_eq!(error.field, "network_service", "{bad}");
        }
    }

    #[test]
    fn a_name_may_be_in_another_domain() {
        let name: ServiceName = "gold@floating.example".parse().unwrap();
        assert_eq!(
            (name.domain(), name.local().as_str()),
            (Some("floating.example"), "gold")
        );
        let domain = "west".parse().unwrap();
        assert_eq!(name.in_domain(&domain).as_str(), "gold@west");
        assert_eq!("gold".parse::<ServiceName>().unwrap().domain(), None);
        for bad in ["gold@", "@west", "gold@West", "gold@a@b", "gold@a b"] {
            let error = bad.parse::<EndpointName>().unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.value.as_str()),
                ("network_service_endpoint_name", bad)
            );
        }
    }

    #[test]
    fn ids_are_printable_and_short() {
        assert!("nsc-1/α".parse::<ConnectionId>().is_err());
        assert!("a b".parse::<ConnectionId>().is_err());
        assert!("x".repeat(129).parse::<ConnectionId>().is_err());
        assert!("x".repeat(128).parse::<ConnectionId>().is_ok());
    }
}
