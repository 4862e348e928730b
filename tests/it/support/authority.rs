//! Certificates for tests, made by openssl: an authority, and what it has signed.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::{Folder, required};

/// An authority, in a folder with the certificates that it has signed: NAME.pem and NAME.key. Its own are `ca`.
pub struct Authority {
    pub folder: Folder,
}

/// A certificate that is to be signed.
pub struct Signing<'a> {
    authority: &'a Authority,
    name: String,
    san: String,
    subject: String,
    key: &'static str,
    issuer: &'a str,
    is_authority: bool,
    today: Option<String>,
    days: u32,
}

const ECDSA: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

impl Authority {
    pub fn new() -> Self {
        let authority = Self { folder: Folder::new() };
        authority.self_signed("ca", "DNS:nobody.example");
        authority
    }

    /// As `openssl req -x509` makes them: a certificate of an authority, too.
    pub fn self_signed(&self, name: &str, san: &str) {
        let arguments = format!(
            "req -x509 -newkey {ECDSA} -nodes -keyout {name}.key -out {name}.pem -subj /CN={name} -days 100 \
             -addext subjectAltName={san}"
        );
        self.openssl(&mut openssl(), &arguments);
    }

    /// Begins a certificate: ECDSA, from today on for 100 days.
    pub fn sign<'a>(&'a self, name: &str, san: &str) -> Signing<'a> {
        Signing {
            authority: self,
            name: name.to_owned(),
            san: san.to_owned(),
            subject: format!("/CN={name}"),
            key: ECDSA,
            issuer: "ca",
            is_authority: false,
            today: None,
            days: 100,
        }
    }

    /// Signed on this day, for ten days.
    pub fn signed(&self, name: &str, san: &str, day: Option<&str>) {
        let signing = self.sign(name, san).days(10);
        match day {
            Some(day) => signing.on(day).done(),
            None => signing.done(),
        }
    }

    /// Its revocation list, crl.pem, with these certificates.
    pub fn revoke(&self, names: &[&str]) {
        self.revoke_on(names, None);
    }

    /// The same, as if today was this day; the list is good for 30 days.
    pub fn revoke_on(&self, names: &[&str], day: Option<&str>) {
        let settings = "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ncrlnumber=crl.number\ndefault_md=sha256\n\
                        default_crl_days=30\n";
        self.folder.write("ca.conf", settings);
        self.folder.write("index.txt", "");
        self.folder.write("crl.number", "01\n");
        let ca = "-config ca.conf -cert ca.pem -keyfile ca.key";
        for name in names {
            self.openssl(&mut openssl_on(day), &format!("ca {ca} -revoke {name}.pem"));
        }
        self.openssl(&mut openssl_on(day), &format!("ca {ca} -gencrl -out crl.pem"));
    }

    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// As the keys of a certificate in the configuration.
    pub fn pair(&self, name: &str) -> String {
        format!("{{cert: '{}', key: '{}'}}", self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// Runs openssl in its folder.
    #[track_caller]
    pub fn openssl(&self, command: &mut Command, arguments: &str) {
        let command = command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        let Output { status, stderr, .. } = command.output().unwrap();
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    }
}

impl<'a> Signing<'a> {
    /// `/CN=alice/O=Example`
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = subject.to_owned();
        self
    }

    /// By this certificate instead of the authority's.
    pub fn by(mut self, issuer: &'a str) -> Self {
        self.issuer = issuer;
        self
    }

    /// It may sign others.
    pub fn authority(mut self) -> Self {
        self.is_authority = true;
        self
    }

    pub fn rsa(mut self) -> Self {
        self.key = "rsa:2048";
        self
    }

    /// As if today was this day.
    pub fn on(mut self, day: &str) -> Self {
        self.today = Some(day.to_owned());
        self
    }

    pub fn days(mut self, days: u32) -> Self {
        self.days = days;
        self
    }

    #[track_caller]
    pub fn done(self) {
        let Self { authority, name, san, subject, key, issuer, is_authority, today, days } = self;
        let arguments = format!("req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj {subject}");
        authority.openssl(&mut openssl(), &arguments);
        let is_authority = if is_authority { "TRUE" } else { "FALSE" };
        let extensions = format!("subjectAltName={san}\nbasicConstraints=CA:{is_authority}\n");
        authority.folder.write(&format!("{name}.ext"), extensions);
        let arguments = format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -out {name}.pem \
             -days {days} -extfile {name}.ext"
        );
        authority.openssl(&mut openssl_on(today.as_deref()), &arguments);
    }
}

pub fn openssl() -> Command {
    Command::new(required("openssl"))
}

/// As if today was this day.
fn openssl_on(day: Option<&str>) -> Command {
    let mut command = openssl();
    if let Some(day) = day {
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", format!("{day} 12:00:00"));
    }
    command
}

fn faketime() -> PathBuf {
    required("/usr/lib/*/faketime/libfaketime.so.1")
}
