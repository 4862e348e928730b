//! Header values as the configuration writes them: text with `$variables`, compiled once, rendered for each request.
//! The result never has a control byte, so that a value can't end its line early. The caller gives the variables'
//! values.

use std::fmt;
use std::io::Write;

use super::super::placeholders::{Piece, pieces};
use super::fields::Fields;

/// The variables' values for one request.
#[derive(Clone, Debug, Default)]
pub struct Variables<'a> {
    /// `RequestHead::host`; any case.
    pub host: &'a [u8],
    /// `RequestHead::authority`.
    pub http_host: &'a [u8],
    /// The request's own.
    pub fields: Fields<'a>,
    /// The client's address without port.
    pub remote_addr: &'a str,
    /// The client's port.
    pub remote_port: u16,
    /// X-Forwarded-For of a trusted peer (`RequestHead::write_forwarded_for`); else empty.
    pub forwarded_for: &'a [u8],
    /// `http`, or X-Forwarded-Proto of a trusted peer.
    pub scheme: &'a str,
    /// The client's, or one of our own.
    pub request_id: &'a [u8],
    /// The address that the client connected to, without port.
    pub server_addr: &'a str,
    /// The port that the client connected to.
    pub server_port: u16,
    /// What TLS says of the client; default: there is none.
    pub tls: TlsVariables<'a>,
}

/// The values of the variables about TLS; empty where there is nothing to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsVariables<'a> {
    /// `TLSv1.3`
    pub protocol: &'a str,
    pub cipher: &'a str,
    /// The name that the client asked for.
    pub server_name: &'a str,
    /// The subject of its certificate, which was verified.
    pub client_subject: &'a str,
}

/// A variable of a template: `$host` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    Host,
    HttpHost,
    /// `$http_NAME`: a header of the request, by its name in lower case.
    Field(String),
    RemoteAddr,
    RemotePort,
    ProxyAddXForwardedFor,
    Scheme,
    RequestId,
    ServerAddr,
    ServerPort,
    SslProtocol,
    SslCipher,
    SslServerName,
    SslClientSubject,
}

/// The names are nginx's.
const VARIABLES: [(&str, Variable); 13] = [
    ("host", Variable::Host),
    ("http_host", Variable::HttpHost),
    ("remote_addr", Variable::RemoteAddr),
    ("remote_port", Variable::RemotePort),
    ("proxy_add_x_forwarded_for", Variable::ProxyAddXForwardedFor),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("server_addr", Variable::ServerAddr),
    ("server_port", Variable::ServerPort),
    ("ssl_protocol", Variable::SslProtocol),
    ("ssl_cipher", Variable::SslCipher),
    ("ssl_server_name", Variable::SslServerName),
    ("ssl_client_s_dn", Variable::SslClientSubject),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

/// A compiled header value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// Why a header value in the configuration is not a valid template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// The variable's name, without the dollar.
    UnknownVariable(String),
    /// Such as a line break.
    ControlCharacter,
}

impl Template {
    /// `$name` or `${name}` is a variable, `$$` a dollar, and all else literal text.
    ///
    /// # Errors
    /// An unknown variable, or a control character in the text.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if text.chars().any(char::is_control) {
            return Err(InvalidTemplate::ControlCharacter);
        }
        let parts = pieces(text).map(|piece| {
            Ok(match piece {
                Piece::Text(text) => Part::Literal(text.to_owned()),
                Piece::Name(name) => Part::Variable(variable(name)?),
            })
        });
        Ok(Self { parts: parts.collect::<Result<_, _>>()? })
    }

    /// Whether its value depends on `variable`.
    pub fn uses(&self, variable: &Variable) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(own) if own == variable))
    }

    /// Appends the value. Control bytes, which no variable should hold, become spaces.
    pub fn render(&self, variables: &Variables<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => variable.render(variables, out),
            }
        }
        for byte in &mut out[start..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
    }
}

impl Variable {
    fn render(&self, variables: &Variables<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Host => out.extend(variables.host.iter().map(u8::to_ascii_lowercase)),
            Self::HttpHost => out.extend_from_slice(variables.http_host),
            Self::Field(name) => variables.fields.clone().write_joined(name.as_bytes(), out),
            Self::RemoteAddr => out.extend_from_slice(variables.remote_addr.as_bytes()),
            Self::RemotePort => push_number(variables.remote_port, out),
            Self::ProxyAddXForwardedFor => {
                out.extend_from_slice(variables.forwarded_for);
                if !variables.forwarded_for.is_empty() {
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(variables.remote_addr.as_bytes());
            }
            Self::Scheme => out.extend_from_slice(variables.scheme.as_bytes()),
            Self::RequestId => out.extend_from_slice(variables.request_id),
            Self::ServerAddr => out.extend_from_slice(variables.server_addr.as_bytes()),
            Self::ServerPort => push_number(variables.server_port, out),
            Self::SslProtocol => out.extend_from_slice(variables.tls.protocol.as_bytes()),
            Self::SslCipher => out.extend_from_slice(variables.tls.cipher.as_bytes()),
            Self::SslServerName => out.extend_from_slice(variables.tls.server_name.as_bytes()),
            Self::SslClientSubject => out.extend_from_slice(variables.tls.client_subject.as_bytes()),
        }
    }
}

fn push_number(number: u16, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("a Vec takes every write");
}

fn variable(name: &str) -> Result<Variable, InvalidTemplate> {
    let found = VARIABLES.iter().find(|(known, _)| *known == name);
    let field = || {
        let field = name.strip_prefix("http_").filter(|field| !field.is_empty())?;
        Some(Variable::Field(field.to_ascii_lowercase().replace('_', "-")))
    };
    let variable = found.map(|(_, variable)| variable.clone()).or_else(field);
    variable.ok_or_else(|| InvalidTemplate::UnknownVariable(name.to_owned()))
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlCharacter => f.write_str("control character in a header value"),
            Self::UnknownVariable(name) => {
                let known = VARIABLES.map(|(name, _)| format!("${name}")).join(", ");
                write!(f, "unknown variable `${name}`; known are {known}, $http_NAME for a header, and $$ for a dollar")
            }
        }
    }
}

impl std::error::Error for InvalidTemplate {}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables<'static> {
        Variables {
            host: b"Example.COM",
            http_host: b"Example.COM.:81",
            fields: Fields::default(),
            server_addr: "198.51.100.9",
            remote_addr: "192.0.2.7",
            remote_port: 4711,
            forwarded_for: b"",
            scheme: "http",
            request_id: b"r-1",
            server_port: 8080,
            tls: TlsVariables {
                protocol: "TLSv1.3",
                cipher: "TLS_AES_128_GCM_SHA256",
                server_name: "a.example",
                client_subject: "CN=alice,O=Example",
            },
        }
    }

    fn render(text: &str, variables: &Variables<'_>) -> String {
        let mut out = Vec::new();
        Template::parse(text).expect("a valid template").render(variables, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn renders_text_and_variables() {
        assert_eq!(render("$host:$server_port", &variables()), "example.com:8080");
        assert_eq!(
            render("$scheme://$remote_addr:$remote_port/${request_id}x", &variables()),
            "http://192.0.2.7:4711/r-1x"
        );
        assert_eq!(render("$http_host $server_addr", &variables()), "Example.COM.:81 198.51.100.9");
        assert_eq!(
            render("$ssl_protocol $ssl_cipher $ssl_server_name $ssl_client_s_dn", &variables()),
            "TLSv1.3 TLS_AES_128_GCM_SHA256 a.example CN=alice,O=Example"
        );
        assert_eq!(render("<$ssl_client_s_dn>", &Variables::default()), "<>");
        assert_eq!(render("plain", &variables()), "plain");
        assert_eq!(render("", &variables()), "");
    }

    #[test]
    fn knows_which_variables_it_uses() {
        let template = Template::parse("request_id=$request_id, $$host").expect("a valid template");
        assert!(template.uses(&Variable::RequestId));
        assert!(!template.uses(&Variable::Host), "a dollar and a text");
    }

    #[test]
    fn takes_two_dollars_for_one() {
        assert_eq!(render("$$host costs 5$$", &variables()), "$host costs 5$");
    }

    #[test]
    fn appends_the_peer_to_what_was_forwarded() {
        assert_eq!(render("$proxy_add_x_forwarded_for", &variables()), "192.0.2.7");
        let variables = Variables { forwarded_for: b"198.51.100.1, 10.0.0.1", ..variables() };
        assert_eq!(render("$proxy_add_x_forwarded_for", &variables), "198.51.100.1, 10.0.0.1, 192.0.2.7");
    }

    #[test]
    fn names_the_known_variables_when_one_is_unknown() {
        for (text, name) in
            [("$hots", "hots"), ("$", ""), ("a$-b", ""), ("${host", ""), ("$hostname", "hostname"), ("$http_", "http_")]
        {
            assert_eq!(Template::parse(text), Err(InvalidTemplate::UnknownVariable(name.to_owned())), "{text}");
        }
        let message = Template::parse("$hots").expect_err("unknown").to_string();
        assert!(message.contains("`$hots`") && message.contains("$proxy_add_x_forwarded_for"), "{message}");
    }

    #[test]
    fn never_lets_a_line_end_through() {
        assert_eq!(Template::parse("a\r\nX-Evil: 1"), Err(InvalidTemplate::ControlCharacter));
        let variables = Variables { request_id: b"1\r\nX-Evil: 1\0", ..variables() };
        assert_eq!(render("$request_id", &variables), "1  X-Evil: 1 ");
    }
}
