//! The Arrow schema that travels with a Parquet file under `ARROW:schema`: readers built on Arrow take types from it
//! that Parquet itself cannot say. Here: texts are `Dictionary(Int32, Utf8)`, so pandas and polars read categoricals.
//!
//! In: columns. Out: an encapsulated IPC message `Schema` in base64. The message is a FlatBuffer of four
//! kinds of table; they are written here, because the crate that knows them brings all of Arrow's arrays into
//! the build.

use base64::Engine;

use super::super::table::{Column, Kind};

/// Under which the schema stands in the file's metadata.
pub const KEY: &str = "ARROW:schema";

/// MetadataVersion.V5.
const V5: i16 = 4;
/// MessageHeader.Schema.
const SCHEMA: u8 = 1;
/// Before a message: "what follows is a length".
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Messages and 64-bit numbers stand at multiples of this, bytes.
const ALIGN: usize = 8;

/// The schema of these columns.
pub fn schema(columns: &[Column]) -> String {
    let dictionaries = columns.iter().scan(-1, |id, column| {
        *id += i64::from(column.kind == Kind::Text);
        Some(*id)
    });
    let fields = columns.iter().zip(dictionaries);
    let fields = fields.map(|(column, dictionary)| field(column, dictionary));
    let schema = Table(vec![(1, Value::Tables(fields.collect()))]);
    let message = Table(vec![
        (0, Value::Short(V5)),
        (1, Value::Byte(SCHEMA)),
        (2, Value::Table(schema)),
    ]);
    let mut flat = Flat::default();
    flat.root(&message);
    flat.align(ALIGN, 0);
    let mut bytes = CONTINUATION.to_vec();
    bytes.extend((flat.bytes.len() as i32).to_le_bytes());
    bytes.extend(flat.bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Field: name, nullable, type (its kind, then its table), dictionary, children.
fn field(column: &Column, dictionary: i64) -> Table {
    let int = |bits: i32| Table(vec![(0, Value::Int(bits)), (1, Value::Byte(1))]);
    // FloatingPoint.precision: 1 is single, 2 double.
    let float = |precision: i16| Table(vec![(0, Value::Short(precision))]);
    let (nullable, kind, of_kind) = match column.kind {
        Kind::Id => (false, 2, int(64)),
        Kind::Place => (false, 3, float(2)),
        Kind::Whole => (true, 2, int(32)),
        Kind::Number => (true, 3, float(1)),
        Kind::Text => (true, 5, Table(Vec::new())),
    };
    let mut values = vec![
        (0, Value::Text(column.name.clone())),
        (1, Value::Byte(u8::from(nullable))),
        (2, Value::Byte(kind)),
        (3, Value::Table(of_kind)),
    ];
    if column.kind == Kind::Text {
        // DictionaryEncoding: its id in the file, the type of its indices.
        let encoding = Table(vec![
            (0, Value::Long(dictionary)),
            (1, Value::Table(int(32))),
        ]);
        values.push((4, Value::Table(encoding)));
    }
    values.push((5, Value::Tables(Vec::new())));
    Table(values)
}

/// Values by their slots, slots rising. A slot that is left out has its default.
struct Table(Vec<(usize, Value)>);

enum Value {
    Byte(u8),
    Short(i16),
    Int(i32),
    Long(i64),
    Text(String),
    Table(Table),
    Tables(Vec<Table>),
}

impl Value {
    /// What stands in the table itself: a number, or room for an offset.
    fn inline(&self) -> Vec<u8> {
        match self {
            Self::Byte(v) => vec![*v],
            Self::Short(v) => v.to_le_bytes().to_vec(),
            Self::Int(v) => v.to_le_bytes().to_vec(),
            Self::Long(v) => v.to_le_bytes().to_vec(),
            Self::Text(_) | Self::Table(_) | Self::Tables(_) => vec![0; 4],
        }
    }
}

/// A FlatBuffer, written from its front to its end, so that every offset points forwards.
#[derive(Default)]
struct Flat {
    bytes: Vec<u8>,
}

impl Flat {
    fn root(&mut self, table: &Table) {
        self.bytes = vec![0; 4];
        let at = self.table(table);
        self.point(0, at);
    }

    /// Zeros until `ahead` bytes more would end at a multiple of `of`.
    fn align(&mut self, of: usize, ahead: usize) {
        let end = (self.bytes.len() + ahead).next_multiple_of(of);
        self.bytes.resize(end - ahead, 0);
    }

    /// Puts the distance to `target` at `from`.
    fn point(&mut self, from: usize, target: usize) {
        let distance = (target - from) as u32;
        self.bytes[from..from + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// Where the table stands: after its list of slots, before what it points to.
    fn table(&mut self, Table(values): &Table) -> usize {
        let slots = values.last().map_or(0, |(slot, _)| slot + 1);
        let (mut places, mut body) = (vec![0u16; slots], vec![0u8; 4]);
        for (slot, value) in values {
            let inline = value.inline();
            body.resize(body.len().next_multiple_of(inline.len()), 0);
            places[*slot] = body.len() as u16;
            body.extend(inline);
        }
        let list_bytes = 4 + 2 * slots;
        self.align(ALIGN, list_bytes);
        for number in [list_bytes as u16, body.len() as u16] {
            self.bytes.extend(number.to_le_bytes());
        }
        let places_of = places.iter().flat_map(|place| place.to_le_bytes());
        self.bytes.extend(places_of);
        let at = self.bytes.len();
        body[..4].copy_from_slice(&(list_bytes as i32).to_le_bytes());
        self.bytes.extend(body);
        for (slot, value) in values {
            if let Some(target) = self.outside(value) {
                self.point(at + usize::from(places[*slot]), target);
            }
        }
        at
    }

    /// Where a value stands that is not in the table itself.
    fn outside(&mut self, value: &Value) -> Option<usize> {
        match value {
            Value::Text(text) => {
                let at = self.count(text.len());
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
                Some(at)
            }
            Value::Table(table) => Some(self.table(table)),
            Value::Tables(tables) => {
                let at = self.count(tables.len());
                self.bytes.resize(at + 4 + 4 * tables.len(), 0);
                for (i, table) in tables.iter().enumerate() {
                    let target = self.table(table);
                    self.point(at + 4 + 4 * i, target);
                }
                Some(at)
            }
            Value::Byte(_) | Value::Short(_) | Value::Int(_) | Value::Long(_) => None,
        }
    }

    /// The length that a text or a list begins with, and where it stands.
    fn count(&mut self, length: usize) -> usize {
        self.align(4, 0);
        let at = self.bytes.len();
        self.bytes.extend((length as u32).to_le_bytes());
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As pyarrow 26 reads it: `pyarrow.ipc.read_schema(base64.b64decode(text))` gives
    /// `id: int64 not null, x_px: double not null, type: int32, type_name: dictionary<values=string, indices=int32,
    /// ordered=0>, area_um2: float`.
    const BY_PYARROW: &str = "/////+gBAAAQAAAAAAAKAAwABAAGAAgACgAAAAQAAQAQAAAAAAAAAAgACAAAAAQACAAAAAQAAAAFAAAAJAAAAGgAAACsAAAA8AAA\
        AGwBAAAQABQABAAIAAkADAAAABAAEAAAABAAAAAAAgAAHAAAACQAAAACAAAAaWQAAAAAAAAIAAkABAAIAAgAAABAAAAAAQAAAAAA\
        AAAQABQABAAIAAkADAAAABAAEAAAABAAAAAAAwAAHAAAACAAAAAEAAAAeF9weAAAAAAAAAYABgAEAAYAAAACAAAAAAAAAAAAAAAQ\
        ABQABAAIAAkADAAAABAAEAAAABAAAAABAgAAHAAAACQAAAAEAAAAdHlwZQAAAAAIAAkABAAIAAgAAAAgAAAAAQAAAAAAAAAQABgA\
        BAAIAAkADAAQABQAEAAAABQAAAABBQAAJAAAADAAAABYAAAACQAAAHR5cGVfbmFtZQAAAAAAAAAEAAQABAAAAAAAAAAIABQACAAQ\
        AAgAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAgACQAEAAgACAAAACAAAAABAAAAAAAAABAAFAAEAAgACQAMAAAAEAAQAAAAEAAAAAED\
        AAAcAAAAIAAAAAgAAABhcmVhX3VtMgAABgAGAAQABgAAAAEAAAAAAAAAAAAAAA==";

    #[test]
    fn the_bytes_are_those_that_pyarrow_has_read() {
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
            unit: "",
        };
        let columns = [
            column("id", Kind::Id),
            column("x_px", Kind::Place),
            column("type", Kind::Whole),
            column("type_name", Kind::Text),
            column("area_um2", Kind::Number),
        ];
        assert_eq!(schema(&columns), BY_PYARROW);
    }
}
