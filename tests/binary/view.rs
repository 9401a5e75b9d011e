//! `view` as its users meet it: what it refuses, what it serves, how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::harness::{Dir, signal};

/// A running `view` and its address.
fn start(dir: &Dir, line: &str) -> (Child, String) {
    let mut child = dir
        .command(line)
        .stdout(Stdio::piped())
        .spawn()
        .expect("view starts");
    let mut said = String::new();
    let out = child.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut said).unwrap();
    let address = said
        .split("http://")
        .nth(1)
        .and_then(|a| a.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {said:?}"));
    (child, address.to_owned())
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn stop(mut child: Child) {
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_run_is_viewed_until_ctrl_c() {
    let dir = Dir::new();
    dir.field("a.png", 300, 200)
        .ok("run --model analytic --mpp 0.5 -o out a.png");
    let csv = String::from_utf8(dir.read("out/a/nuclei.csv")).unwrap();
    let (child, address) = start(&dir, "view out --no-browser");
    assert!(address.starts_with("127.0.0.1:"));
    assert!(get(&address, "/about.json").contains("\"has_slide\":true"));
    // The table made from the store is the one that the run wrote.
    assert!(get(&address, "/selection.csv").ends_with(&format!("\r\n\r\n{csv}")));
    stop(child);

    // Without its slide: the small picture, and a word about it. Another slide is refused.
    std::fs::rename(dir.path("a.png"), dir.path("b.png")).unwrap();
    dir.field("c.png", 300, 210);
    let (child, address) = start(&dir, "view out/a --no-browser");
    let about = get(&address, "/about.json");
    assert!(about.contains("\"has_slide\":false") && about.contains("--slide"));
    assert!(get(&address, "/tile/9/0_0.jpg").contains("200 OK"));
    stop(child);
    let (child, address) = start(&dir, "view out/a --no-browser --slide b.png");
    assert!(get(&address, "/about.json").contains("\"has_slide\":true"));
    stop(child);
    dir.fails(
        "view out --slide c.png",
        2,
        &["c.png", "300 x 210", "300 x 200"],
    );
    dir.fails(
        "view out --slide none.png",
        3,
        &["none.png", "no such file"],
    );
}

#[test]
fn an_images_result_is_viewed_too() {
    let dir = Dir::new();
    dir.field("a.png", 300, 200)
        .ok("tile --model analytic --mpp 0.5 -o out a.png");
    let csv = String::from_utf8(dir.read("out/a/nuclei.csv")).unwrap();
    let (child, address) = start(&dir, "view out --no-browser");
    assert!(get(&address, "/selection.csv").ends_with(&format!("\r\n\r\n{csv}")));
    let found = get(&address, "/nucleus.json?x=135&y=105&reach=2");
    assert!(found.contains("[\"id\",\""), "{found}");
    stop(child);
}

#[test]
fn what_cannot_be_viewed_is_said() {
    let dir = Dir::new();
    dir.fails("view nowhere", 2, &["nowhere", "cannot be read"]);
    dir.write("empty/x.txt", "")
        .fails("view empty", 2, &["holds no results"]);
    dir.write("half/summary.json", "{}")
        .fails("view half", 2, &["half", "nuclei.json", "needed"]);
    dir.write("two/a/summary.json", "{}")
        .write("two/b/summary.json", "{}")
        .fails("view two", 2, &["2 slides", "two/a or two/b"]);
    dir.write("half/nuclei.json", "{}")
        .write("half/nuclei.csv", "id\n");
    dir.fails("view half", 3, &["nuclei.json"]);
}

/// From `view` to a model: what the page sends is saved, checked and learnt from.
#[test]
fn corrections_are_saved_beside_the_results_and_learnt() {
    let dir = Dir::new();
    dir.field("a.png", 300, 200)
        .ok("run --mpp 0.25 --mask none -o out a.png");
    let rows = String::from_utf8(dir.read("out/a/nuclei.csv")).unwrap();
    let nuclei = rows.lines().count() - 1;
    assert!(nuclei > 10, "{nuclei}");
    let (child, address) = start(&dir, "view out --no-browser");
    let body = r#"{"box": [0, 0, 300, 200], "wrong": [1], "drawn": []}"#;
    let mut stream = TcpStream::connect(&address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /correct HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains("200 OK"), "{said}");
    stop(child);
    let features = dir.json("out/a/corrections/a_x0_y0.geojson");
    assert_eq!(features["features"].as_array().unwrap().len(), nuclei - 1);
    let pixels = |name: &str| image::open(dir.path(name)).unwrap().into_rgb8();
    assert!(pixels("out/a/corrections/a_x0_y0.png") == pixels("a.png"));
    // What was saved is learnt from, by the command that the page shows.
    dir.ok("data check out/a/corrections --mpp 0.25 -o check");
    let found = dir.json("check/check.json");
    assert_eq!(found["sets"]["corrections"]["nuclei"], nuclei - 1);
    dir.ok(
        "train --data out/a/corrections --mpp 0.25 --from default --steps 1 --batch 1 -o learnt",
    );
    dir.ok("model info learnt");
}
