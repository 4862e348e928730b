//! The rules of the logs.

use std::path::PathBuf;

use crate::config::access_format::AccessFormat;
use crate::config::file::log::{LogLevel, LogSpec};
use crate::config::file::off::means_off;
use crate::config::log::LogConfig;
use crate::telemetry::{FACILITIES, LogTarget, SyslogFormat, SyslogReceiver, SyslogTarget};

use super::block::Block;

/// The port of syslog by UDP (RFC 5426, 3.3).
const SYSLOG_PORT: u16 = 514;
/// Of APP-NAME in syslog (RFC 5424, 6).
const MAX_TAG_BYTES: usize = 48;

pub fn build_log(log: &LogSpec, block: &mut Block<'_>) -> LogConfig {
    let level = match log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let access = if log.access == "off" { None } else { build_target("access", &log.access, block) };
    let access_format = log
        .access_format
        .as_ref()
        .filter(|text| !means_off(text))
        .and_then(|text| AccessFormat::parse(text).map_err(|error| block.problem("access_format", error)).ok());
    let program = build_target("program", &log.program, block).unwrap_or(LogTarget::Stderr);
    LogConfig { level, format: log.format, access, access_format, program }
}

/// `None`: a problem was reported.
fn build_target(key: &str, text: &str, block: &mut Block<'_>) -> Option<LogTarget> {
    match text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        "on" | "off" | "" => {
            let message = "doesn't say where to; write stdout, stderr, a file's path such as ./lb.log, or \
                           syslog:HOST:PORT";
            block.problem(key, message);
            None
        }
        _ => match text.strip_prefix("syslog:") {
            Some(target) => match syslog_target(target) {
                Ok(target) => Some(LogTarget::Syslog(target)),
                Err(why) => {
                    let forms = "write syslog:HOST:PORT or syslog:/dev/log, and after it, where they are wanted, \
                                 ,facility=local0 ,tag=NAME ,format=local";
                    block.problem(key, format!("`{text}`: {why}; {forms}"));
                    None
                }
            },
            None => Some(LogTarget::File(PathBuf::from(text))),
        },
    }
}

/// `HOST:PORT` or a path, and options.
fn syslog_target(text: &str) -> Result<SyslogTarget, String> {
    let mut parts = text.split(',').map(str::trim);
    let receiver = receiver(parts.next().unwrap_or_default())?;
    let (facility_number, format) = (facility("daemon")?, SyslogFormat::default());
    let mut target = SyslogTarget { receiver, facility: facility_number, tag: "lb".to_owned(), format };
    for option in parts {
        match option.split_once('=') {
            Some(("facility", name)) => target.facility = facility(name)?,
            Some(("tag", tag)) => {
                if tag.is_empty() || tag.len() > MAX_TAG_BYTES || !tag.chars().all(|c| c.is_ascii_graphic()) {
                    return Err(format!("the tag must be 1 to {MAX_TAG_BYTES} letters, digits and signs"));
                }
                tag.clone_into(&mut target.tag);
            }
            Some(("format", "rfc5424")) => target.format = SyslogFormat::Rfc5424,
            Some(("format", "local")) => target.format = SyslogFormat::Local,
            Some(("format", other)) => return Err(format!("`{other}` is no format; choose rfc5424 or local")),
            _ => return Err(format!("`{option}` is no option")),
        }
    }
    Ok(target)
}

fn receiver(text: &str) -> Result<SyslogReceiver, String> {
    if text.starts_with('/') && !text.starts_with("//") {
        return Ok(SyslogReceiver::Unix(PathBuf::from(text)));
    }
    // As a URL has it.
    let text = text.trim_start_matches("//").trim_end_matches('/');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (host, port.ok_or("the port must be from 1 to 65535")?)
        }
        _ => (text, SYSLOG_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c == '/') {
        return Err("there is no host".to_owned());
    }
    Ok(SyslogReceiver::Udp { host: host.to_owned(), port })
}

fn facility(name: &str) -> Result<u8, String> {
    let index = (0..).zip(FACILITIES).find(|(_, known)| *known == name).map(|(index, _)| index);
    index.ok_or_else(|| format!("`{name}` is no facility; choose one of: {}", FACILITIES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_targets_are_read_as_they_are_written() {
        let read = |text: &str| LogTarget::Syslog(syslog_target(text).expect("it is valid")).to_string();
        for text in ["127.0.0.1:514", "[::1]:1514", "/dev/log", "logs.internal:514"] {
            assert_eq!(read(text), format!("syslog:{text}"));
        }
        assert_eq!([read("a"), read("//b:1/")], ["syslog:a:514", "syslog:b:1"]);
        let target = syslog_target("/dev/log,facility=local3, tag=web-1").expect("it is valid");
        assert_eq!((target.facility, &*target.tag), (19, "web-1"));
        for wrong in
            ["", "a:0", "a:x", ":514", "a b:1", "a:1,facility=loud", "a:1,tag=", "a:1,colour=red", "a:1,format=x"]
        {
            assert!(syslog_target(wrong).is_err(), "{wrong}");
        }
    }
}
