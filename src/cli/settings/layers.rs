//! The layers below the flags: a TOML file, the environment, and config/default.toml.
//!
//! In: their text. Out: `Settings`. Every value goes through the parser of its flag, so one text means one thing
//! wherever it stands. A mistake is named with its file and line, or with its variable.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Command, FromArgMatches};
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::flags::{Settings, public_name};

/// config/default.toml as it stands in the binary.
pub const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");

/// Reads one flag's text with the flag's own parser.
fn parse_one(field: &str, value: &str) -> Result<Settings, String> {
    let mut flag = OsString::from("--");
    flag.push(public_name(field));
    flag.push("=");
    flag.push(value);
    let command = Settings::augment_args(Command::new("settings").no_binary_name(true));
    command
        .try_get_matches_from([flag])
        .and_then(|matches| Settings::from_arg_matches(&matches))
        .map_err(|error| reason(&error.to_string()))
}

/// What clap says about a value, without the flag's name and the usage.
fn reason(message: &str) -> String {
    let first: Vec<&str> = message
        .lines()
        .take_while(|line| !line.starts_with("Usage") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("tip:"))
        .collect();
    let text = first.join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    match text.split_once("': ") {
        Some((_, reason)) => reason.to_owned(),
        None => text.to_owned(),
    }
}

/// The layer of a TOML file. `path` only names it in messages.
pub fn from_toml(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    let at = |offset: usize, reason: String| ConfigError::File {
        path: path.to_owned(),
        line: text.get(..offset).unwrap_or(text).matches('\n').count() + 1,
        reason,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        at(offset, error.message().to_owned())
    })?;
    let mut settings = Settings::default();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let place = key.span().start;
        let field = name.replace('-', "_");
        if !Settings::FIELDS.contains(&field.as_str()) {
            return Err(at(place, unknown_key(name)));
        }
        let value = value_text(value.get_ref()).ok_or_else(|| {
            at(
                place,
                format!(
                    "`{name}` is a {}: write a string, a number, true, false or a list of them",
                    value.get_ref().type_str()
                ),
            )
        })?;
        let one = parse_one(&field, &value)
            .map_err(|reason| at(place, format!("`{name}` = {value}: {reason}")))?;
        settings.overlay(one);
    }
    Ok(settings)
}

fn unknown_key(name: &str) -> String {
    let wanted = name.replace('_', "-");
    let near = Settings::FIELDS
        .iter()
        .map(|field| public_name(field))
        .filter(|known| {
            known.starts_with(&wanted)
                || wanted.starts_with(known.as_str())
                || one_edit(known, &wanted)
        })
        .min();
    match near {
        Some(known) => format!("unknown key `{name}`: did you mean `{known}`?"),
        None => format!("unknown key `{name}`: `wsi-nuclei run --help` lists the settings"),
    }
}

/// Whether one letter put in, left out, changed or swapped turns `a` into `b`.
fn one_edit(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let longest = a.len().max(b.len());
    let swapped = a.len() == b.len()
        && head + tail + 2 == a.len()
        && a.get(head) == b.get(head + 1)
        && a.get(head + 1) == b.get(head);
    swapped || (a.len().abs_diff(b.len()) <= 1 && head + tail + 1 >= longest)
}

/// A TOML value as the text of its flag; lists joined by commas. `None`: a kind that no setting takes.
fn value_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Array(list) => list
            .iter()
            .map(|item| value_text(item.get_ref()))
            .collect::<Option<Vec<String>>>()
            .map(|items| items.join(",")),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// The name of a setting's environment variable.
pub fn variable(field: &str) -> String {
    format!("WSI_NUCLEI_{}", field.to_uppercase())
}

/// The layer of the environment; `lookup` gives a variable's value. An empty variable says nothing.
pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    for field in Settings::FIELDS {
        let name = variable(field);
        let Some(value) = lookup(&name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let wrong = |reason: String| ConfigError::Variable {
            name: name.clone(),
            reason,
        };
        let value = value
            .into_string()
            .map_err(|_| wrong("is not UTF-8".into()))?;
        settings.overlay(
            parse_one(field, &value).map_err(|reason| wrong(format!("`{value}`: {reason}")))?,
        );
    }
    Ok(settings)
}

/// The layer below all others.
pub fn defaults() -> Result<Settings, ConfigError> {
    from_toml(DEFAULT_TOML, Path::new("config/default.toml"))
}
