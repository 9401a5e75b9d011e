//! The server as a browser, or somebody worse, meets it: over a real socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::output::Units;
use crate::output::nuclei_csv;
use crate::result::fixture;
use crate::view::open;
use crate::view::tiles::Tiles;

fn scene() -> Scene {
    let result = fixture::result(1.996);
    let rows = open::table(&result).unwrap();
    let thumb = image::RgbImage::from_pixel(30, 20, image::Rgb([200, 150, 180]));
    let tiles = Tiles::new(result.frames().level0_size_px, None, thumb);
    Scene::new(result, rows, tiles, Vec::new())
}

fn csv() -> String {
    let mut bytes = Vec::new();
    nuclei_csv::stream(&fixture::result(1.996), Units::Um, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Head and body of the answer to these words.
fn ask(address: SocketAddr, words: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let body = all.split_off(end + 4);
    (String::from_utf8(all).unwrap(), body)
}

fn with_server(test: impl FnOnce(SocketAddr)) {
    let server = Server::bind(scene(), 0, "corrections".into()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(&stop));
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(server.address())));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let line = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (head, body) = ask(address, &line);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn json(address: SocketAddr, path: &str) -> Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn listens_on_loopback_alone_and_answers_to_its_own_names_alone() {
    with_server(|address| {
        assert!(address.ip().is_loopback());
        let host = |line: &str| {
            let request = format!("GET /about.json HTTP/1.1\r\n{line}Connection: close\r\n\r\n");
            ask(address, &request).0
        };
        for own in ["127.0.0.1", "localhost:9000", "LocalHost"] {
            assert!(host(&format!("Host: {own}\r\n")).contains(" 200 "), "{own}");
        }
        for foreign in [
            "",
            "Host: evil.example\r\n",
            "Host: 127.0.0.1.evil.example\r\n",
            "Host: evil.example:127.0.0.1\r\n",
            "Host: 127.0.0.1\r\nHost: evil.example\r\n",
            "Host: 0.0.0.0\r\n",
        ] {
            assert!(host(foreign).contains(" 403 "), "{foreign:?}");
        }
    });
}

#[test]
fn nothing_but_its_own_names_is_served_and_nothing_is_changed() {
    with_server(|address| {
        for path in [
            "/../Cargo.toml",
            "/..%2f..%2fetc%2fpasswd",
            "/tile/../../etc/passwd",
            "/tile/1/0_0.png",
            "/tile/99/0_0.jpg",
            "/tile/0/-1_0.jpg",
            "//etc/passwd",
            "/view.rs",
            "/nuclei.csv",
        ] {
            assert_eq!(get(address, path).0, 404, "{path}");
        }
        let post = "POST /about.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert!(ask(address, post).0.contains(" 405 "));
        for nonsense in [
            "/nuclei.json",
            "/nuclei.json?x0=1&y0=1&x1=0&y1=2&scale=1",
            "/nuclei.json?x0=0&y0=0&x1=nan&y1=2&scale=1",
            "/counts.json?range=no:1:2",
            "/counts.json?types=x",
            "/nucleus.json?x=1",
            "/nucleus.json?id=..",
        ] {
            let (status, body) = get(address, nonsense);
            assert!(status == 400 && !body.is_empty(), "{nonsense}: {status}");
        }
    });
}

#[test]
fn the_page_has_its_files_and_its_tiles() {
    with_server(|address| {
        let (head, body) = ask(
            address,
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        let page = String::from_utf8(body).unwrap();
        assert!(head.contains("Content-Security-Policy: default-src 'self'"));
        for part in page.split('"').filter(|part| part.starts_with('/')) {
            let (status, body) = get(address, part);
            assert!(status == 200 && !body.is_empty(), "{part}");
        }
        assert!(!page.contains("http"), "nothing is fetched from elsewhere");
        assert_eq!(get(address, "/tile/5/0_0.jpg").0, 200);
        let about = json(address, "/about.json");
        assert_eq!(
            (&about["count"], &about["max_level"]),
            (&4.into(), &5.into())
        );
        assert_eq!(about["types"][1]["name"], "lymphocyte");
    });
}

#[test]
fn a_clicked_nucleus_has_its_row_of_nuclei_csv() {
    with_server(|address| {
        let csv = csv();
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let rows: Vec<BTreeMap<String, String>> = rows.deserialize().map(Result::unwrap).collect();
        for row in &rows {
            let path = format!("/nucleus.json?x={}&y={}&reach=1", row["x_px"], row["y_px"]);
            let clicked = json(address, &path);
            assert_eq!(
                clicked,
                json(address, &format!("/nucleus.json?id={}", row["id"]))
            );
            let got: BTreeMap<String, String> =
                serde_json::from_value::<Vec<(String, String)>>(clicked["row"].clone())
                    .unwrap()
                    .into_iter()
                    .collect();
            assert_eq!(&got, row);
        }
        // Beside nucleus 2 (left rim at 20 / 1.996): within reach of nothing, or of it.
        assert!(json(address, "/nucleus.json?x=9&y=7&reach=0.5").is_null());
        assert!(json(address, "/nucleus.json?x=9&y=7&reach=9").is_object());
        // A filter that hides it hides it from clicks.
        assert!(json(address, "/nucleus.json?x=13&y=7&reach=0.5").is_object());
        assert!(json(address, "/nucleus.json?x=13&y=7&reach=0.5&types=1").is_null());
        assert!(json(address, "/nucleus.json?id=5").is_null());
    });
}

#[test]
fn a_view_gets_outlines_counts_and_its_csv() {
    with_server(|address| {
        let all = "x0=0&y0=0&x1=40&y1=40&scale=0.1";
        let view = json(address, &format!("/nuclei.json?{all}"));
        assert_eq!(
            (&view["count"], &view["detail"]),
            (&4.into(), &"outlines".into())
        );
        // Nucleus 2 is a rectangle of 12 x 8 proc px at (20, 10), closed.
        let ring = &view["nuclei"][1][1];
        assert_eq!(ring.as_array().unwrap().len(), 10);
        assert_eq!((&ring[0], &ring[1]), (&10.02.into(), &5.01.into()));
        let far = json(
            address,
            &format!("/nuclei.json?{}", all.replace("0.1", "9")),
        );
        assert_eq!(far["detail"], "points");

        let lymphocytes = json(address, "/counts.json?types=2");
        assert_eq!(lymphocytes["count"], 1);
        assert_eq!(lymphocytes["types"], serde_json::json!([[1, 0], [2, 1]]));
        assert_eq!(
            json(address, "/counts.json?range=type_prob:0.7:")["count"],
            2
        );

        let csv = csv();
        let lines: Vec<&str> = csv.lines().collect();
        let body = |path: &str| {
            let (status, body) = get_chunked(address, path);
            assert_eq!(status, 200);
            body
        };
        assert_eq!(body("/selection.csv"), csv);
        assert_eq!(
            body("/selection.csv?types=2"),
            format!("{}\n{}\n", lines[0], lines[2])
        );
        let corner = "/selection.csv?x0=0&y0=0&x1=2&y1=2&scale=1";
        assert_eq!(body(corner), format!("{}\n{}\n", lines[0], lines[1]));
    });
}

/// The scene has no slide, so that nothing is ever saved: what gets as far as the sentence that says so was let in.
#[test]
fn corrections_are_taken_from_the_own_page_alone() {
    with_server(|address| {
        let post = |path: &str, headers: &str, body: &str| {
            let length = body.len();
            let words = format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let (head, body) = ask(address, &words);
            let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, String::from_utf8(body).unwrap())
        };
        let json = "Content-Type: application/json\r\n";
        let from = |origin: &str| format!("{json}Origin: {origin}\r\n");
        let body = "{\"box\": [0, 0, 30, 20]}";
        for own in [
            json.to_owned(),
            from(&format!("http://{address}")),
            from("http://localhost:8000"),
        ] {
            let (status, said) = post("/correct", &own, body);
            assert!(status == 400 && said.contains("--slide"), "{own}: {said}");
        }
        for foreign in [
            String::new(),
            "Content-Type: text/plain\r\n".into(),
            "Content-Type: application/x-www-form-urlencoded\r\n".into(),
            from("http://evil.example"),
            from("null"),
            from("https://localhost.evil.example"),
        ] {
            assert_eq!(post("/correct", &foreign, body).0, 403, "{foreign}");
        }
        assert_eq!(post("/about.json", json, body).0, 405);
        assert_eq!(get(address, "/correct").0, 404);
        for nonsense in [
            "",
            "[]",
            "{\"box\": [0, 0]}",
            "{\"box\": [0, 0, 30, 20], \"path\": \"/etc\"}",
        ] {
            let (status, said) = post("/correct", json, nonsense);
            assert!(
                status == 400 && said.starts_with("corrections: "),
                "{nonsense}: {said}"
            );
        }
    });
}

/// HTTP/1.0 has no chunks: the body comes as it is.
fn get_chunked(address: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = ask(
        address,
        &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"),
    );
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn connections_that_come_at_once_and_stay_open_are_all_answered() {
    with_server(|address| {
        for _ in 0..10 {
            let mut open: Vec<TcpStream> = (0..16)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            for stream in &mut open {
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let words = b"GET /view.css HTTP/1.1\r\nHost: localhost\r\n\r\n";
                stream.write_all(words).unwrap();
            }
            for stream in &mut open {
                let mut start = [0; 12];
                stream.read_exact(&mut start).unwrap();
                assert_eq!(&start, b"HTTP/1.1 200");
            }
        }
    });
}

#[test]
fn a_port_that_is_taken_is_said() {
    let first = Server::bind(scene(), 0, "corrections".into()).unwrap();
    let error = Server::bind(scene(), first.address().port(), PathBuf::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("--port"), "{error}");
}
