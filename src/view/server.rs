//! HTTP on 127.0.0.1: the page, tiles, and what the page asks about nuclei.
//!
//! In: a [`Scene`]. Out: answers to GET, and to one POST that saves corrections. A request names a tile by numbers,
//! nuclei by place or filter, and pages by the few names below: no part of it ever becomes a path. A Host other than
//! this machine's own names is refused, so that no foreign page can reach the results through a name that resolves to
//! 127.0.0.1. Nothing may be framed or fetched by other sites, and nothing saved from another site's page.

use std::io::{self, Cursor, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response};

use super::correct::{self, Correction, CorrectionError};
use super::index::ViewBox;
use super::{Filter, Scene, ViewError};
use crate::output::significant;

/// How many requests are answered at a time: a page asks for six tiles at once.
const WORKERS: usize = 6;
/// How soon a worker notices that it should stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// Rows of a selection that are held at a time.
const ROWS_AT_A_TIME: usize = 1024;
/// Of corrections: a thousand drawn nuclei have some 500 kB.
const LARGEST_BODY_BYTES: u64 = 8 << 20;
/// Where corrections are sent.
const CORRECT: &str = "/correct";
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The files of the page. All else is 404.
const FILES: [(&str, &str, &[u8]); 7] = [
    ("/", HTML, include_bytes!("page/view.html")),
    ("/view.js", SCRIPT, include_bytes!("page/view.js")),
    ("/correct.js", SCRIPT, include_bytes!("page/correct.js")),
    ("/draw.js", SCRIPT, include_bytes!("page/draw.js")),
    ("/view.css", "text/css; charset=utf-8", STYLE.as_bytes()),
    (
        "/openseadragon.js",
        SCRIPT,
        include_bytes!("page/openseadragon.min.js"),
    ),
    (
        "/openseadragon.LICENSE.txt",
        TEXT,
        include_bytes!("page/openseadragon.LICENSE.txt"),
    ),
];
/// The colours of the report, then the page's own rules.
const STYLE: &str = concat!(
    include_str!("../report/page.css"),
    include_str!("page/view.css")
);

/// Sent with every answer.
const HEADERS: [(&str, &str); 6] = [
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    // Another slide may be served on the same port tomorrow.
    ("Cache-Control", "no-store"),
];

/// A page waiting to be opened.
pub struct Server {
    http: tiny_http::Server,
    address: SocketAddr,
    scene: Arc<Scene>,
    corrections: PathBuf,
}

impl Server {
    /// Opens a port of 127.0.0.1; 0 takes a free one. Corrections are saved into the folder `corrections`.
    ///
    /// # Errors
    /// [`ViewError::Port`] if it is taken or not allowed.
    pub fn bind(scene: Scene, port: u16, corrections: PathBuf) -> Result<Self, ViewError> {
        let failed = |reason: String| ViewError::Port { port, reason };
        let http = tiny_http::Server::http((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| failed(error.to_string()))?;
        let Some(address) = http.server_addr().to_ip() else {
            return Err(failed("it has no address".to_owned()));
        };
        Ok(Self {
            http,
            address,
            scene: Arc::new(scene),
            corrections,
        })
    }

    /// Where the page is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is raised.
    pub fn serve(&self, stop: &AtomicBool) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(PATIENCE);
                    self.nudge();
                }
            });
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(Some(request)) = self.http.recv_timeout(PATIENCE) {
                            self.respond(request);
                        }
                    }
                });
            }
        });
    }
}

impl Server {
    /// Connects and hangs up. tiny_http 0.12 gives each connection a thread as long as it lasts, and may count a free
    /// thread twice when several connections come at once, as a browser's do: the last then wait until another closes.
    /// One more connection makes a thread, which takes those that wait when it is done with that one.
    fn nudge(&self) {
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }

    fn respond(&self, mut request: Request) {
        let answer = match allowed(&request) {
            Err(refusal) => Err(refusal),
            Ok(()) if *request.method() == Method::Post => self.correct(&mut request),
            Ok(()) => answer(request.url(), &self.scene),
        };
        let answer = answer.unwrap_or_else(|refusal| refusal);
        let (status, headers) = (answer.status.into(), headers_of(&answer));
        let response = Response::new(status, headers, answer.body, answer.bytes, None);
        // A browser that has moved on closes its connection: nobody's business.
        let _ = request.respond(response);
    }

    /// Saves corrections and says where.
    fn correct(&self, request: &mut Request) -> Result<Answer, Answer> {
        let mut body = Vec::new();
        let mut reader = request.as_reader().take(LARGEST_BODY_BYTES + 1);
        if reader.read_to_end(&mut body).is_err() || body.len() as u64 > LARGEST_BODY_BYTES {
            return Err(Answer::refused(
                413,
                "too much at once: save a smaller area",
            ));
        }
        let asked: Correction = serde_json::from_slice(&body)
            .map_err(|error| Answer::refused(400, format!("corrections: {error}")))?;
        let saved = correct::save(&self.scene, &asked, &self.corrections).map_err(|error| {
            let status = match error {
                CorrectionError::Slide(_) | CorrectionError::Write { .. } => 500,
                _ => 400,
            };
            Answer::refused(status, error)
        })?;
        Ok(Answer::json(&json!({
            "picture": saved.picture.display().to_string(),
            "nuclei": saved.nuclei,
            "folder": self.corrections.display().to_string(),
            "mpp": significant(saved.mpp),
            "model": self.scene.result().meta.model.name,
        })))
    }
}

/// What goes back.
struct Answer {
    status: u16,
    kind: &'static str,
    body: Box<dyn Read + Send>,
    /// `None`: sent in chunks.
    bytes: Option<usize>,
    /// Name under which a browser saves it.
    download: Option<&'static str>,
}

impl Answer {
    fn whole(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            kind,
            bytes: Some(body.len()),
            body: Box::new(Cursor::new(body)),
            download: None,
        }
    }

    fn json(value: &Value) -> Self {
        Self::whole(200, JSON, value.to_string().into_bytes())
    }

    /// A sentence with the cure.
    fn refused(status: u16, why: impl ToString) -> Self {
        Self::whole(status, TEXT, why.to_string().into_bytes())
    }

    fn nothing_here() -> Self {
        Self::refused(404, "there is nothing here: the page is at /")
    }
}

/// The headers of an answer.
fn headers_of(answer: &Answer) -> Vec<Header> {
    let mut headers = vec![("Content-Type", answer.kind.to_owned())];
    headers.extend(HEADERS.map(|(name, value)| (name, value.to_owned())));
    if let Some(name) = answer.download {
        headers.push((
            "Content-Disposition",
            format!("attachment; filename=\"{name}\""),
        ));
    }
    // All are ASCII without line breaks: none is lost here.
    let headers = headers.into_iter();
    headers
        .filter_map(|(name, value)| Header::from_bytes(name, value).ok())
        .collect()
}

/// Only this machine's own names, to look, and to save what its own page sends.
fn allowed(request: &Request) -> Result<(), Answer> {
    let values = |name: &'static str| {
        let headers = request.headers().iter();
        headers
            .filter(move |h| h.field.equiv(name))
            .map(|h| h.value.as_str())
    };
    let is_own = |host: &str| {
        // A tunnel may come in through another port.
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        HOSTS.iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    let mut hosts = values("Host");
    if !hosts.next().is_some_and(is_own) || hosts.next().is_some() {
        return Err(Answer::refused(
            403,
            "open http://127.0.0.1 or http://localhost, no other name",
        ));
    }
    match request.method() {
        Method::Get | Method::Head => Ok(()),
        // A page of another site can send a form, but neither JSON nor an Origin of ours.
        Method::Post if request.url() == CORRECT => {
            let is_json = values("Content-Type").eq([JSON]);
            let is_from_here =
                values("Origin").all(|origin| origin.strip_prefix("http://").is_some_and(is_own));
            match is_json && is_from_here {
                true => Ok(()),
                false => Err(Answer::refused(403, "only this server's own page saves")),
            }
        }
        _ => Err(Answer::refused(405, "this server is to look at: GET")),
    }
}

fn answer(url: &str, scene: &Arc<Scene>) -> Result<Answer, Answer> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    if let Some((_, kind, bytes)) = FILES.iter().find(|(name, ..)| *name == path) {
        return Ok(Answer::whole(200, kind, bytes.to_vec()));
    }
    if let Some(name) = path.strip_prefix("/tile/") {
        return tile(name, scene);
    }
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let query = Query(&query);
    match path {
        "/about.json" => Ok(Answer::json(&scene.about())),
        "/counts.json" => Ok(Answer::json(&scene.counts(&query.filter(scene)?))),
        "/nuclei.json" => {
            let view = query.view()?;
            Ok(Answer::json(&scene.look(&view, &query.filter(scene)?)))
        }
        "/nucleus.json" => nucleus(query, scene),
        "/selection.csv" => selection(query, scene),
        _ => Err(Answer::nothing_here()),
    }
}

/// `LEVEL/COLUMN_ROW.jpg`.
fn tile(name: &str, scene: &Scene) -> Result<Answer, Answer> {
    let numbers = || {
        let (level, rest) = name.strip_suffix(".jpg")?.split_once('/')?;
        let (column, row) = rest.split_once('_')?;
        Some((level.parse().ok()?, column.parse().ok()?, row.parse().ok()?))
    };
    let (level, column, row) = numbers().ok_or_else(Answer::nothing_here)?;
    match scene.tiles().jpeg(level, column, row) {
        Ok(Some(jpeg)) => Ok(Answer::whole(200, "image/jpeg", jpeg)),
        Ok(None) => Err(Answer::nothing_here()),
        Err(error) => Err(Answer::refused(500, error)),
    }
}

/// The nucleus of an `id`, or at `x`, `y` within `reach` (level-0 px); null where there is none.
fn nucleus(query: Query<'_>, scene: &Scene) -> Result<Answer, Answer> {
    let place = match query.get("id") {
        Some(id) => match id.parse() {
            Ok(id) => scene.rows().place_of(id),
            Err(_) => return Err(Answer::refused(400, "id: a whole number")),
        },
        None => {
            let point = [query.number("x")?, query.number("y")?];
            scene.at(point, query.number("reach")?, &query.filter(scene)?)
        }
    };
    match place.map(|place| scene.nucleus(place)).transpose() {
        Ok(found) => Ok(Answer::json(&found.unwrap_or_default())),
        Err(error) => Err(unreadable(&error)),
    }
}

/// The rows of the wanted nuclei, of a box if one is given, as a CSV to save.
fn selection(query: Query<'_>, scene: &Arc<Scene>) -> Result<Answer, Answer> {
    let view = query.get("x0").map(|_| query.view()).transpose()?;
    let places = scene.selection(&query.filter(scene)?, view.as_ref());
    let header = scene.rows().header().map_err(|error| unreadable(&error))?;
    Ok(Answer {
        status: 200,
        kind: "text/csv; charset=utf-8",
        bytes: None,
        body: Box::new(Lines {
            scene: scene.clone(),
            places: places.into_iter(),
            text: Cursor::new(header),
        }),
        download: Some("selection.csv"),
    })
}

fn unreadable(error: &io::Error) -> Answer {
    Answer::refused(500, format!("the table cannot be read: {error}"))
}

/// Lines of a table, read when they are wanted.
struct Lines {
    scene: Arc<Scene>,
    places: std::vec::IntoIter<usize>,
    text: Cursor<Vec<u8>>,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.text.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        let mut text = Vec::new();
        for place in self.places.by_ref().take(ROWS_AT_A_TIME) {
            text.extend(self.scene.rows().line(place)?);
        }
        self.text = Cursor::new(text);
        self.text.read(buffer)
    }
}

/// The pairs after `?`, decoded.
#[derive(Clone, Copy)]
struct Query<'q>(&'q [(String, String)]);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<f64, Answer> {
        let value = self.get(name).and_then(|text| text.parse::<f64>().ok());
        value
            .filter(|v| v.is_finite())
            .ok_or_else(|| Answer::refused(400, format!("{name}: a number is missing")))
    }

    /// `x0`, `y0`, `x1`, `y1` in level-0 px, `scale` in level-0 px a screen px.
    fn view(&self) -> Result<ViewBox, Answer> {
        let view = ViewBox {
            min: [self.number("x0")?, self.number("y0")?],
            max: [self.number("x1")?, self.number("y1")?],
            level0_per_px: self.number("scale")?,
        };
        let upright = (0..2).all(|axis| view.min[axis] <= view.max[axis]);
        match upright && view.level0_per_px > 0.0 {
            true => Ok(view),
            false => Err(Answer::refused(400, "x0 <= x1, y0 <= y1, scale > 0")),
        }
    }

    fn filter(&self, scene: &Scene) -> Result<Filter, Answer> {
        let pairs = self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        Filter::from_query(pairs, scene.rows()).map_err(|error| Answer::refused(400, error))
    }
}

#[cfg(test)]
mod tests;
