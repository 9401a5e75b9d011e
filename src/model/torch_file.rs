//! Files that torch.save wrote: the zip container (PyTorch 1.6 and later) and the older stream.
//!
//! In: bytes. Out: named arrays of f32. Executes nothing of the file (see [`super::pickle`]), and
//! checks every size against the bytes that are there. Layout: torch/serialization.py of PyTorch 2.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::pickle::{self, Value};

/// A stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<i64>,
    /// In C order: the last axis is the fastest.
    pub values: Vec<f32>,
}

/// Reads a checkpoint: a state dict, or a dict that holds one under `desc` (hover_net),
/// `state_dict` or `model`.
///
/// # Errors
/// Why the file cannot be used, as the end of a sentence that begins with its name.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let (root, storages) = if bytes.starts_with(b"PK") {
        zip(bytes)?
    } else {
        stream(bytes)?
    };
    let entries = root.entries().ok_or("holds no dict of tensors")?;
    let named = |name: &str| {
        let found = entries.iter().find(|(k, _)| k.as_text() == Some(name));
        found.and_then(|(_, v)| v.entries())
    };
    let state = ["desc", "state_dict", "model"]
        .iter()
        .find_map(|n| named(n));
    // Tied weights share a storage; more sharing than that would unfold a small file to gigabytes.
    let stored: usize = storages.values().map(|data| data.len()).sum();
    let mut budget = MAX_SHARING * stored;
    let mut tensors = BTreeMap::new();
    for (key, value) in state.unwrap_or(entries) {
        let Some(name) = key.as_text() else { continue };
        let name = name.strip_prefix("module.").unwrap_or(name);
        if let Some(tensor) =
            tensor(&value, &storages, &mut budget).map_err(|e| format!("{name}: {e}"))?
        {
            tensors.insert(name.to_string(), tensor);
        }
    }
    match tensors.is_empty() {
        true => Err("holds no tensors".into()),
        false => Ok(tensors),
    }
}

/// Times that the bytes of all tensors may exceed those of their storages.
const MAX_SHARING: usize = 2;
/// Most axes of a tensor: networks of images have four.
const MAX_AXES: usize = 8;

/// Raw bytes of each storage by key.
type Storages<'a> = HashMap<String, &'a [u8]>;

fn zip(bytes: &[u8]) -> Result<(Value, Storages<'_>), String> {
    let files = stored_files(bytes)?;
    let (pickle_name, pickle_bytes) = files
        .iter()
        .find(|(name, _)| name.ends_with("/data.pkl") || name.as_str() == "data.pkl")
        .ok_or(
            "the zip has no data.pkl: not written by torch.save (TorchScript has its own architecture)",
        )?;
    let folder = pickle_name.trim_end_matches("data.pkl");
    if let Some(order) = files.get(&format!("{folder}byteorder"))
        && *order != b"little"
    {
        return Err("was written on a big-endian machine".into());
    }
    let (root, _) = pickle::read(pickle_bytes)?;
    let prefix = format!("{folder}data/");
    let storages = files
        .iter()
        .filter_map(|(name, data)| Some((name.strip_prefix(&prefix)?.to_string(), *data)))
        .collect();
    Ok((root, storages))
}

/// The little-endian number of `n` bytes at `at`.
fn le(bytes: &[u8], at: usize, n: usize) -> Result<usize, String> {
    let part = at.checked_add(n).and_then(|end| bytes.get(at..end));
    let part = part.ok_or("the zip is cut short")?;
    Ok(part.iter().rev().fold(0, |v, b| v << 8 | usize::from(*b)))
}

/// Files of an uncompressed zip by name (APPNOTE.TXT 6.3, 4.3.7, 4.3.12, 4.3.16).
fn stored_files(bytes: &[u8]) -> Result<BTreeMap<String, &[u8]>, String> {
    let tail = bytes.len().saturating_sub(66_000);
    let end = (tail..bytes.len().saturating_sub(21))
        .rev()
        .find(|&i| bytes[i..].starts_with(b"PK\x05\x06"))
        .ok_or("the zip has no end: is the file cut short?")?;
    let (count, mut at) = (le(bytes, end + 10, 2)?, le(bytes, end + 16, 4)?);
    let mut files = BTreeMap::new();
    for _ in 0..count {
        if le(bytes, at, 4)? != 0x0201_4b50 {
            return Err("the zip's directory is damaged".into());
        }
        let (method, size) = (le(bytes, at + 10, 2)?, le(bytes, at + 24, 4)?);
        let [name_len, extra_len, comment_len] =
            [28, 30, 32].map(|offset| le(bytes, at + offset, 2));
        let (name_len, local) = (name_len?, le(bytes, at + 42, 4)?);
        let name = bytes
            .get(at + 46..at + 46 + name_len)
            .ok_or("the zip is cut short")?;
        let name = String::from_utf8_lossy(name).into_owned();
        if method != 0 {
            return Err(format!("{name} is compressed: torch.save stores its files"));
        }
        let start = local + 30 + le(bytes, local + 26, 2)? + le(bytes, local + 28, 2)?;
        let data = start.checked_add(size).and_then(|e| bytes.get(start..e));
        files.insert(name, data.ok_or("the zip is cut short")?);
        at += 46 + name_len + extra_len? + comment_len?;
    }
    Ok(files)
}

fn stream(bytes: &[u8]) -> Result<(Value, Storages<'_>), String> {
    let mut at = 0;
    let mut next = || -> Result<Value, String> {
        let (value, used) = pickle::read(&bytes[at..])
            .map_err(|e| format!("{e}: neither a zip nor a stream of torch.save"))?;
        at += used;
        Ok(value)
    };
    // Magic number, protocol, machine.
    for _ in 0..3 {
        next()?;
    }
    let root = next()?;
    let Value::List(keys) = next()? else {
        return Err("has no list of storages".into());
    };
    let mut sizes = HashMap::new();
    storage_sizes(&root, &mut sizes, &mut HashSet::new());
    let mut storages = Storages::new();
    for key in keys.borrow().iter() {
        let key = key.as_text().ok_or("a storage has no name")?;
        let count = le(bytes, at, 8).map_err(|_| "the file is cut short")?;
        at += 8;
        let item = sizes.get(key).copied().unwrap_or(0);
        let end = count.checked_mul(item).and_then(|n| at.checked_add(n));
        let data = end.and_then(|end| bytes.get(at..end));
        storages.insert(key.to_string(), data.ok_or("the file is cut short")?);
        at += count * item;
    }
    Ok((root, storages))
}

/// Collects the bytes per item of each storage that a tensor below `value` names. `seen`: the
/// containers that were looked into; a container that lies in many places is looked into once.
fn storage_sizes(value: &Value, sizes: &mut HashMap<String, usize>, seen: &mut HashSet<*const ()>) {
    if value.address().is_some_and(|place| !seen.insert(place)) {
        return;
    }
    match value {
        Value::Dict(dict) => dict
            .borrow()
            .iter()
            .for_each(|(_, v)| storage_sizes(v, sizes, seen)),
        Value::List(list) => list
            .borrow()
            .iter()
            .for_each(|v| storage_sizes(v, sizes, seen)),
        Value::Tuple(items) => items
            .inner
            .iter()
            .for_each(|v| storage_sizes(v, sizes, seen)),
        Value::Call(call) => call
            .inner
            .1
            .iter()
            .for_each(|v| storage_sizes(v, sizes, seen)),
        Value::Persistent(_) => {
            if let Ok((kind, key)) = storage(value) {
                sizes.insert(key.to_string(), kind.bytes());
            }
        }
        _ => {}
    }
}

/// The type of a storage's items.
#[derive(Debug, Clone, Copy)]
enum Kind {
    F32,
    F64,
    F16,
    Bf16,
    Int(usize),
}

impl Kind {
    fn of(global: &str) -> Option<Self> {
        Some(match global {
            "torch FloatStorage" => Kind::F32,
            "torch DoubleStorage" => Kind::F64,
            "torch HalfStorage" => Kind::F16,
            "torch BFloat16Storage" => Kind::Bf16,
            "torch LongStorage" => Kind::Int(8),
            "torch IntStorage" => Kind::Int(4),
            "torch ShortStorage" => Kind::Int(2),
            "torch ByteStorage" | "torch BoolStorage" => Kind::Int(1),
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::F16 | Kind::Bf16 => 2,
            Kind::Int(n) => n,
        }
    }

    fn value(self, b: &[u8]) -> f32 {
        let bits = b.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        match self {
            Kind::F32 => f32::from_bits(bits as u32),
            Kind::F64 => f64::from_bits(bits) as f32,
            Kind::Bf16 => f32::from_bits((bits as u32) << 16),
            Kind::F16 => half(bits as u16),
            Kind::Int(n) => {
                let shift = 64 - 8 * n as u32;
                ((bits << shift) as i64 >> shift) as f32
            }
        }
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// Type and key of `('storage', type, key, place, count)`.
fn storage(value: &Value) -> Result<(Kind, &str), String> {
    let Value::Persistent(id) = value else {
        return Err("a tensor without a storage".into());
    };
    match id.inner.as_slice() {
        [_, Value::Global(kind), key, ..] => {
            let kind = Kind::of(kind).ok_or_else(|| format!("{kind} is no storage"))?;
            Ok((kind, key.as_text().ok_or("a storage has no name")?))
        }
        _ => Err("a storage of another form".into()),
    }
}

/// A tensor as the file describes it; `None` for anything else. `budget`: bytes that tensors may
/// still take from storages.
fn tensor(value: &Value, storages: &Storages, budget: &mut usize) -> Result<Option<Array>, String> {
    let Value::Call(call) = value else {
        return Ok(None);
    };
    let (name, arguments) = &call.inner;
    if &**name == "torch._utils _rebuild_parameter" {
        return match arguments.first() {
            Some(inner @ Value::Call(c)) if &*c.inner.0 != "torch._utils _rebuild_parameter" => {
                tensor(inner, storages, budget)
            }
            _ => Err("a parameter without a tensor".into()),
        };
    }
    let [stored, offset, Value::Tuple(size), Value::Tuple(stride), ..] = arguments.as_slice()
    else {
        return Err("a tensor of another form".into());
    };
    let (kind, key) = storage(stored)?;
    let data = storages
        .get(key)
        .ok_or_else(|| format!("storage {key} is missing"))?;
    let axis = |v: &Value| v.as_int().and_then(|n| usize::try_from(n).ok());
    let numbers = |t: &[Value]| t.iter().map(axis).collect::<Option<Vec<usize>>>();
    let (Some(size), Some(stride), Some(offset)) =
        (numbers(&size.inner), numbers(&stride.inner), axis(offset))
    else {
        return Err("a size, stride or offset is no number".into());
    };
    if size.len() > MAX_AXES {
        return Err(format!("has {} axes, more than {MAX_AXES}", size.len()));
    }
    let items = data.len() / kind.bytes();
    let places = places(&size, &stride, offset, items)?;
    *budget = budget
        .checked_sub(places.len() * kind.bytes())
        .ok_or("shares its storage with too many others")?;
    let item = |i: usize| kind.value(&data[i * kind.bytes()..(i + 1) * kind.bytes()]);
    Ok(Some(Array {
        shape: size.iter().map(|n| *n as i64).collect(),
        values: places.into_iter().map(item).collect(),
    }))
}

/// Places of a tensor's values in its storage, last axis fastest.
fn places(
    size: &[usize],
    stride: &[usize],
    offset: usize,
    items: usize,
) -> Result<Vec<usize>, String> {
    let count = size.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    // A stride of 0 could make a huge tensor of few bytes: no weights are stored so.
    let count = count.filter(|n| *n <= items && size.len() == stride.len());
    let count = count.ok_or("its shape does not fit its storage")?;
    let mut places = Vec::with_capacity(count);
    if count > 0 {
        if offset >= items {
            return Err("it reaches beyond its storage".into());
        }
        places.push(offset);
    }
    for (&n, &step) in size.iter().zip(stride) {
        let last = places.last().copied().unwrap_or(0);
        let furthest = n
            .saturating_sub(1)
            .checked_mul(step)
            .and_then(|d| d.checked_add(last));
        if count > 0 && furthest.is_none_or(|i| i >= items) {
            return Err("it reaches beyond its storage".into());
        }
        places = places
            .into_iter()
            .flat_map(|at| (0..n).map(move |i| at + i * step))
            .collect();
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by tests/fixtures/make_checkpoint.py with PyTorch: both containers hold the same.
    const ZIP: &[u8] = include_bytes!("../../tests/fixtures/checkpoint_zip.tar");
    const STREAM: &[u8] = include_bytes!("../../tests/fixtures/checkpoint_stream.tar");

    #[test]
    fn both_containers_give_the_tensors_that_pytorch_saved() {
        for bytes in [ZIP, STREAM] {
            let tensors = read(bytes).unwrap();
            let check = |name: &str, shape: &[i64], values: &[f32]| {
                let found = &tensors[name];
                assert_eq!((&found.shape[..], &found.values[..]), (shape, values));
            };
            // Saved transposed, from the middle of a larger storage.
            check("conv.weight", &[3, 2], &[2.0, 5.0, 3.0, 6.0, 4.0, 7.0]);
            check("half", &[3], &[0.5, -2.0, 65504.0]);
            check("double", &[1], &[0.25]);
            check("brain", &[2], &[1.5, -3.0]);
            check("count", &[], &[-7.0]);
            check("parameter", &[2], &[9.0, 8.0]);
            assert_eq!(tensors.len(), 6);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_it_is_cut_or_changed() {
        let mut rng = fastrand::Rng::with_seed(2);
        for whole in [ZIP, STREAM] {
            for cut in 0..whole.len() {
                assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
            }
            for _ in 0..2000 {
                let mut bytes = whole.to_vec();
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u32(..8);
                // Some flips change a value only; none may panic.
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn half_floats() {
        let of = |bits: u16| half(bits);
        assert_eq!(
            [of(0x3c00), of(0xc000), of(0x0001)],
            [1.0, -2.0, 2f32.powi(-24)]
        );
        assert!(of(0x7c00).is_infinite() && of(0x7e00).is_nan());
    }
}
