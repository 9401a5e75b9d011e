//! What people read at the end of a command, and commands that take what another one wrote.

use std::collections::BTreeMap;

use crate::harness::Dir;

const RUN: &str = "run --model analytic --mpp 0.5";

fn rows(bytes: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader.deserialize().map(Result::unwrap).collect()
}

/// Two slides, and one that is none.
fn three(dir: &Dir) {
    dir.field("a.png", 300, 200)
        .field("b.png", 240, 240)
        .write("broken.png", "no picture");
}

/// A line that begins with a time, without it.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = time.split(['-', 'T', ':', 'Z']).collect();
    assert_eq!(parts.len(), 7, "{line}");
    assert!(parts.iter().all(|part| digits(part)), "{line}");
    rest
}

#[test]
fn the_last_lines_say_types_density_and_what_to_open() {
    let dir = Dir::new();
    dir.field("a.png", 600, 400);
    let said = dir.ok(&format!("{RUN} a.png -o out")).stderr;
    let lines: Vec<&str> = said.lines().map(without_time).collect();
    let summary = dir.json("out/a/summary.json");
    let types = summary["types"].as_object().unwrap();
    let line = |has: &str| {
        let found = lines.iter().find(|line| line.contains(has));
        *found.unwrap_or_else(|| panic!("no `{has}` in\n{said}"))
    };
    for (name, kind) in types
        .iter()
        .filter(|(_, kind)| kind["count"].as_u64() > Some(0))
    {
        line(&format!("{} {name} (", kind["count"]));
    }
    assert!(line("nuclei per mm²").starts_with("a: "));
    for warning in summary["warnings"].as_array().unwrap() {
        line(&format!("warning: {}", warning.as_str().unwrap()));
    }
    assert_eq!(lines.last(), Some(&"a: open out/a/report.html"), "{said}");
    assert!(dir.path("out/a/report.html").is_file());
    // Without a page there is none to open.
    let said = dir.ok(&format!("{RUN} a.png -o bare --format csv")).stderr;
    assert!(!said.contains("open "), "{said}");
}

#[test]
fn a_batch_counts_its_slides_and_ends_in_one_line() {
    let dir = Dir::new();
    three(&dir);
    let run = dir.run(&format!("{RUN} a.png b.png broken.png -o out"));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let lines: Vec<&str> = run.stderr.lines().map(without_time).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("[1/3] a: ")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("[2/3] b: ")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("[3/3] error: ")),
        "{lines:?}"
    );
    let last = lines.last().unwrap();
    assert!(last.starts_with("2 done, 1 failed: broken ("), "{last}");
    // One slide, one line for its plan, one of progress, one for its end.
    assert!(
        lines
            .iter()
            .filter(|line| line.starts_with("[1/3]"))
            .count()
            <= 4,
        "{lines:?}"
    );
}

#[test]
fn a_slide_that_failed_leaves_its_folder_with_the_reason() {
    let dir = Dir::new();
    three(&dir);
    for (line, folder) in [
        (format!("{RUN} broken.png -o one"), "one"),
        (format!("{RUN} a.png broken.png -o many"), "many"),
    ] {
        let code = dir.run(&line).code;
        let report = dir.json(&format!("{folder}/broken/run.json"));
        assert!(
            report["error"].as_str().unwrap().contains("broken.png"),
            "{report}"
        );
        assert_eq!(report["exit_code"], 3);
        assert!(matches!(code, Some(1 | 3)));
    }
    // What was not started leaves nothing.
    dir.fails(
        &format!("{RUN} a.png -o no --roi none.geojson"),
        2,
        &["none.geojson"],
    );
    assert!(!dir.path("no/a").exists());
}

#[test]
fn a_manifests_other_columns_reach_every_table() {
    let dir = Dir::new();
    three(&dir);
    let manifest = "patient,path,id,arm\nP1,a.png,first,\"x, y\"\nP2,b.png,second,\n";
    dir.write("cohort.csv", manifest);
    dir.ok(&format!("{RUN} --manifest cohort.csv -o out"));
    for (stem, patient, arm) in [("first", "P1", "x, y"), ("second", "P2", "")] {
        let rows = rows(&dir.read(&format!("out/{stem}/nuclei.csv")));
        assert!(rows.len() > 10);
        for row in &rows {
            let found = [&row["slide"], &row["patient"], &row["arm"]];
            assert_eq!(found, [stem, patient, arm]);
        }
        assert_eq!(
            dir.json(&format!("out/{stem}/summary.json"))["manifest"]["patient"],
            patient
        );
    }
    // The store keeps them for later tables.
    dir.ok("export out -o later --format csv");
    assert_eq!(
        dir.read("later/first/nuclei.csv"),
        dir.read("out/first/nuclei.csv")
    );
    // Another manifest is another word about the same nuclei: nothing runs again, the tables follow.
    dir.write(
        "cohort.csv",
        "path,id,patient\na.png,first,P9\nb.png,second,P2\n",
    );
    let said = dir
        .ok(&format!("{RUN} --manifest cohort.csv -o out"))
        .stderr;
    assert!(said.contains("done before"), "{said}");
    assert_eq!(rows(&dir.read("out/first/nuclei.csv"))[0]["patient"], "P9");
}

#[test]
fn commands_take_the_folders_that_run_wrote() {
    let dir = Dir::new();
    three(&dir);
    dir.ok(&format!(
        "{RUN} a.png b.png -o out --format json,csv,ome-zarr,crops,report"
    ));
    for line in [
        "features out -r -o f",
        "features out -o g",
        "export out -o x --format csv",
    ] {
        dir.ok(line);
    }
    for stem in ["a", "b"] {
        let count = rows(&dir.read(&format!("out/{stem}/nuclei.csv"))).len();
        for folder in ["f", "g", "x"] {
            let table = rows(&dir.read(&format!("{folder}/{stem}/nuclei.csv")));
            assert_eq!(table.len(), count, "{folder}");
            assert_eq!(table[0]["slide"], stem);
        }
        // Only nuclei were taken for nuclei.
        let found: Vec<_> = std::fs::read_dir(dir.path("f")).unwrap().collect();
        assert_eq!(found.len(), 2);
    }
    // A store's table is the run's own, byte for byte.
    assert_eq!(dir.read("x/a/nuclei.csv"), dir.read("out/a/nuclei.csv"));
    std::fs::remove_file(dir.path("out/a/nuclei.json")).unwrap();
    std::fs::remove_file(dir.path("out/b/nuclei.json")).unwrap();
    dir.fails(
        "features out -o h",
        2,
        &["wsi-nuclei export out -o OUT --format csv,parquet"],
    );
    // A page is HTML, of one slide too.
    dir.fails("report out -o x.csv", 2, &[".html"]);
    dir.ok("report out/a -o page.html");
    assert!(dir.read("page.html").starts_with(b"<!"));
}

#[test]
fn what_does_not_depend_on_a_slide_is_said_once_with_2() {
    let dir = Dir::new();
    three(&dir);
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    for line in [
        format!("{RUN} a.png b.png -o out --device cuda"),
        format!("{RUN} a.png -o out --device cuda"),
        "tile a.png b.png --model analytic --mpp 0.5 -o out --device cuda".into(),
        "model verify analytic --device cuda".into(),
    ] {
        let run = dir.run(&line);
        assert_eq!(run.code, Some(2), "{line}\n{}", run.stderr);
        assert_eq!(
            run.stderr.matches("no NVIDIA driver").count(),
            1,
            "{}",
            run.stderr
        );
    }
    dir.write("t.toml", "tile-size = 3\n");
    dir.fails(
        &format!("{RUN} a.png -o out --config t.toml"),
        2,
        &["--tile-size 3", "64"],
    );
    assert!(!dir.path("out/a").exists());
}

#[test]
fn the_default_training_is_in_the_binary() {
    let dir = Dir::new();
    // The folder of this test has no config/: what is missing is the data, not the configuration.
    std::fs::create_dir(dir.path("data")).unwrap();
    for line in ["eval --data data", "model tune model --data data"] {
        let run = dir.run(line);
        assert!(
            !run.stderr.contains("train-default.toml"),
            "{line}: {}",
            run.stderr
        );
        assert_ne!(run.code, Some(0));
    }
}

#[test]
fn tile_writes_the_formats_that_its_help_lists() {
    let dir = Dir::new();
    dir.field("a.png", 200, 200);
    let help = dir.ok("tile --help").stdout;
    let (_, list) = help.split_once("Files of nuclei: ").unwrap();
    let (all, usual) = list.split_once("[default: ").unwrap();
    let names = |text: &str| -> Vec<String> {
        let words = text.split([',', ' ', '\n']).map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let usual = names(usual.split_once(']').unwrap().0);
    let tile = "tile a.png --model analytic --mpp 0.5";
    dir.ok(&format!("{tile} -o usual"));
    let files = |folder: &str| {
        let entries = std::fs::read_dir(dir.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    dir.ok(&format!("{tile} -o asked --format {}", usual.join(",")));
    assert_eq!(files("usual/a"), files("asked/a"));
    // Each format adds a file to what an image always gets; the page comes with all.
    for format in names(all) {
        dir.ok(&format!("{tile} -o {format} --format {format}"));
        let plain = ["labels.png", "mask.png", "summary.json", "thumb.png"];
        let more = files(&format!("{format}/a")).len();
        assert!(
            more > plain.len(),
            "{format}: {:?}",
            files(&format!("{format}/a"))
        );
    }
}

#[test]
fn postproc_takes_model_and_scale_from_beside_the_map() {
    let dir = Dir::new();
    // The embedded model has constants that no default has.
    dir.field("a.png", 320, 320)
        .ok("tile a.png --mpp 0.25 -o out --save-raw");
    let tile = dir.json("out/a/nuclei.json");
    assert!(!tile["nuc"].as_object().unwrap().is_empty());
    let said = dir.ok("postproc out/a/raw.npy -o again").stdout;
    assert!(said.contains("constants of hovernet-lite"), "{said}");
    let again = dir.json("again/raw/nuclei.json");
    assert_eq!(again["nuc"], tile["nuc"]);
    assert_eq!(again["types"], tile["types"]);
    assert_eq!(again["mpp"], tile["mpp"]);
    // Away from its card it is as anyone's map, and says so.
    std::fs::rename(dir.path("out/a/raw.npy"), dir.path("b.npy")).unwrap();
    let said = dir.ok("postproc b.npy -o bare").stdout;
    assert!(said.contains("no model is known for this map"), "{said}");
    // Somebody else's JSON of the same name is no card.
    dir.write("b.json", r#"{"mag": 40, "nuc": {}}"#);
    dir.ok("postproc b.npy -o bare");
}

#[test]
fn eval_does_not_match_types_by_bare_number() {
    let dir = Dir::new();
    // The truth by other numbers: 7 is the prediction's 1, 5 its 2.
    dir.field("a.png", 300, 200)
        .ok("tile a.png --model analytic --mpp 0.5 -o out");
    let mut json = dir.json("out/a/nuclei.json");
    let mut seen = [0, 0];
    for nucleus in json["nuc"].as_object_mut().unwrap().values_mut() {
        let kind = nucleus["type"].as_u64().unwrap();
        seen[kind as usize - 1] += 1;
        nucleus["type"] = if kind == 1 { 7 } else { 5 }.into();
    }
    json.as_object_mut().unwrap().remove("types");
    dir.write("truth/a.json", json.to_string());
    let line = "eval --pred out --truth truth";
    dir.fails(
        line,
        2,
        &["--types", "1 dark (", "2 pale (", "predictions", "truth"],
    );
    let pairs = match seen {
        [_, 0] => "7=dark",
        [0, _] => "5=2",
        _ => "7=dark,5=2",
    };
    let scored = dir.ok(&format!("{line} --types {pairs} --json")).stdout;
    let scores: serde_json::Value = serde_json::from_str(&scored).unwrap();
    let of = |name: &str| scores["all"]["scores"][name]["value"].as_f64();
    assert_eq!(of("f1d"), Some(1.0));
    for (name, count) in ["f1_dark", "f1_pale"].iter().zip(seen) {
        assert_eq!(of(name), (count > 0).then_some(1.0), "{name}");
    }
    dir.fails(&format!("{line} --types 9=1"), 2, &["no pair for type"]);
    dir.fails(&format!("{line} --types one"), 2, &["TRUTH=PREDICTION"]);
}
