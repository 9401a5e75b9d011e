use crate::model::DeviceChoice;
use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Command, FromArgMatches};

use crate::output::{Format, Formats, Needs, Units};
use crate::plan::Shard;

use super::values::Level0Box;
use super::*;

fn flags(line: &str) -> Settings {
    let command = Settings::augment_args(Command::new("test").no_binary_name(true));
    let matches = command
        .try_get_matches_from(line.split_whitespace())
        .unwrap();
    Settings::from_arg_matches(&matches).unwrap()
}

fn no_env(_: &str) -> Option<OsString> {
    None
}

fn resolve_line(line: &str) -> Result<RunConfig, ConfigError> {
    Ok(resolve_in(flags(line), None, no_env)?.0)
}

fn message(line: &str) -> String {
    resolve_line(line).unwrap_err().to_string()
}

#[test]
fn default_toml_gives_the_documented_defaults() {
    let config = resolve_line("-o out").unwrap();
    let documented = RunConfig {
        settings: config.settings.clone(),
        ..RunConfig::default()
    };
    assert_eq!(
        config,
        RunConfig {
            output: "out".into(),
            ..documented
        }
    );
    // default.toml lists the formats that are written of a slide.
    let listed = layers::defaults().unwrap().format;
    assert_eq!(listed, Some(Formats(Format::defaults(Needs::Pixels))));
    let (_, terminal) = resolve_in(flags("-o out"), None, no_env).unwrap();
    assert_eq!(terminal.progress, ProgressMode::Auto);
    assert!(!terminal.quiet && terminal.log.is_none());
    assert!(config.threads >= 1);
}

#[test]
fn every_setting_stands_in_default_toml_set_or_commented_out() {
    for field in Settings::FIELDS {
        let name = super::flags::public_name(field);
        assert!(
            layers::DEFAULT_TOML.lines().any(|line| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{name} = "))
            }),
            "{name} is missing from config/default.toml"
        );
    }
    // What is commented out is right too.
    let all: String = layers::DEFAULT_TOML
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let parsed = layers::from_toml(&all, Path::new("all.toml")).unwrap();
    for field in Settings::FIELDS {
        assert!(parsed.has(field), "{field}");
    }
}

#[test]
fn help_states_the_defaults_of_default_toml() {
    let defaults = layers::defaults().unwrap();
    let command = Settings::augment_args(Command::new("test"));
    for arg in command.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, stated)) = help.split_once("[default: ") else {
            continue;
        };
        let stated = stated.split([',', ']']).next().unwrap();
        let value = defaults.value(arg.get_id().as_str());
        let value = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let value = value.split(',').next().unwrap();
        let embedded = arg.get_id() == "model" && value == "default";
        assert!(
            embedded || stated == value,
            "{}: {stated} {value}",
            arg.get_id()
        );
    }
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(
        &file,
        "threads = 2\nmemory = \"2GiB\"\nunits = \"px\"\noutput = \"from-file\"\n",
    )
    .unwrap();
    let env = |name: &str| match name {
        "WSI_NUCLEI_THREADS" => Some(OsString::from("3")),
        "WSI_NUCLEI_MEMORY" => Some(OsString::from("3GiB")),
        "WSI_NUCLEI_QUIET" => Some(OsString::from("")),
        _ => None,
    };
    let (config, _) = resolve_in(flags("--threads 4"), Some(&file), env).unwrap();
    assert_eq!(config.threads, 4);
    assert_eq!(config.memory_bytes, Some(3 << 30));
    assert_eq!(config.units, Units::Px);
    assert_eq!(config.output, Path::new("from-file"));
    let from = |name: &str| config.settings[name].from;
    assert_eq!(from("threads"), Origin::Flag);
    assert_eq!(from("memory"), Origin::Environment);
    assert_eq!(from("units"), Origin::File);
    assert_eq!(from("mask"), Origin::Default);
    assert_eq!(config.settings["memory"].value, "3GiB");
    assert_eq!(config.settings["threads"].value, 4);
    assert_eq!(config.settings["roi"].value, serde_json::Value::Null);
    assert_eq!(config.settings.len(), Settings::FIELDS.len());
}

#[test]
fn a_flag_can_switch_off_what_a_lower_layer_switched_on() {
    let env = |name: &str| (name == "WSI_NUCLEI_RESTART").then(|| OsString::from("yes"));
    let (on, _) = resolve_in(flags("-o x"), None, env).unwrap();
    let (off, _) = resolve_in(flags("-o x --restart=false"), None, env).unwrap();
    assert!(on.restart && !off.restart);
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line() {
    let wrong = |text: &str| {
        layers::from_toml(text, Path::new("my.toml"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        wrong("threads = 2\ntile-siz = 5\n"),
        "my.toml, line 2: unknown key `tile-siz`: did you mean `tile-size`?"
    );
    assert!(wrong("\n\nhoverboard = 1").starts_with("my.toml, line 3: unknown key `hoverboard`"));
    assert_eq!(
        wrong("memory = \"lots\""),
        "my.toml, line 1: `memory` = lots: `lots` is no size: write 8GiB, 512MiB or a number of bytes (a \
            number, or auto)"
    );
    assert!(wrong("threads = 0").contains("must be at least 1"));
    assert!(wrong("units = \"miles\"").contains("possible values: um, px"));
    assert!(wrong("threads = \n").starts_with("my.toml, line 1: "));
    assert!(wrong("[threads]\nx = 1").contains("`threads` is a table"));
    let missing = resolve_in(flags("-o x"), Some(Path::new("none.toml")), no_env);
    assert!(missing.unwrap_err().to_string().starts_with("none.toml: "));
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let env = |name: &str| (name == "WSI_NUCLEI_SHARD").then(|| OsString::from("4/4"));
    let error = resolve_in(flags("-o x"), None, env).unwrap_err();
    assert!(
        error.to_string().starts_with(
            "environment variable WSI_NUCLEI_SHARD: `4/4`: shard 4 of 4 does not exist"
        )
    );
}

#[test]
fn sizes() {
    let bytes = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
    assert_eq!(bytes("8GiB"), Ok(8 << 30));
    assert_eq!(bytes("512MiB"), Ok(512 << 20));
    assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
    assert_eq!(bytes("2 GB"), Ok(2_000_000_000));
    assert_eq!(bytes("4096"), Ok(4096));
    assert_eq!(bytes("10B"), Ok(10));
    for wrong in ["", "GiB", "-1GiB", "8Gib", "nan", "infGiB", "1e30"] {
        assert!(bytes(wrong).is_err(), "{wrong}");
    }
    assert_eq!(ByteSize(3 << 29).to_string(), "1536MiB");
    assert_eq!(ByteSize(1001).to_string(), "1001B");
}

#[test]
fn devices_boxes_shards() {
    for (text, expected) in [
        ("auto", DeviceChoice::Auto),
        ("cpu", DeviceChoice::Cpu),
        ("cuda", DeviceChoice::Cuda(vec![0])),
        ("cuda:0,1", DeviceChoice::Cuda(vec![0, 1])),
    ] {
        assert_eq!(text.parse::<DeviceChoice>().unwrap(), expected);
    }
    assert_eq!(
        "1, 2,30,40".parse(),
        Ok(Level0Box(crate::geometry::Rect::new(1, 2, 30, 40)))
    );
    for wrong in [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "1,2,0,4",
        "-1,0,5,5",
        "a,b,c,d",
        "1,2,3,99999999999",
    ] {
        assert!(wrong.parse::<Level0Box>().is_err(), "{wrong}");
    }
    assert_eq!("0/1".parse(), Ok(Shard { index: 0, of: 1 }));
    for wrong in ["1/1", "1", "a/b", "-1/2", "0/0", ""] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
    assert_eq!(
        "csv,json,csv".parse(),
        Ok(Formats(vec![Format::Json, Format::Csv]))
    );
    assert!("xlsx".parse::<Formats>().is_err());
    for wrong in ["0", "-1", "nan", "inf", "200"] {
        assert!(wrong.parse::<Mpp>().is_err(), "{wrong}");
    }
}

#[test]
fn contradictions_are_refused() {
    assert!(message("").contains("-o OUT"));
    assert!(message("-o x --quiet --progress plain").contains("--quiet and --progress"));
    assert!(message("-o x --shard 0/2 --restart").contains("contradict"));
    assert!(message("-o x --patch-size 512 --tile-size 256").contains("whole patches"));
    assert!(message("-o x --memory 1MiB").contains("at least 320MiB"));
    assert!(message("-o x --threads 1000000").contains("at most 1024"));
    assert!(message("-o x --mask no-such.png").contains("no such file"));
    assert!(message("-o x --roi no-such.geojson").contains("no such file"));
    assert!(resolve_line("-o x --quiet --progress none").is_ok());
    for precision in ["auto", "f32", "tf32", "f16", "bf16"] {
        let line = format!("-o x --device cuda:0,1 --precision {precision}");
        assert!(resolve_line(&line).is_ok(), "{precision}");
    }
}
