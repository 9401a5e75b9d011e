//! Python's pickle, as far as torch.save needs it, without running anything.
//!
//! In: bytes of one pickle. Out: a [`Value`]. Opcodes and globals are an allow-list: any other is
//! an error that names it and its place. Nothing is imported, called or built: a "call" of an
//! allowed global is kept as data ([`Value::Call`]). Protocols 2 to 4, as in Python's pickletools.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// What a pickle holds. Lists and dicts are shared, because a pickle puts them into its memo before
/// it fills them.
#[derive(Debug, Clone)]
pub enum Value {
    /// Python's `None`.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(Rc<str>),
    /// A tuple, its items in order.
    Tuple(Rc<Nested<Vec<Value>>>),
    /// A list, its items in order.
    List(Rc<Filled<Vec<Value>>>),
    /// A dict, its pairs of key and value in order of insertion.
    Dict(Rc<Filled<Vec<(Value, Value)>>>),
    /// `module name` of an allowed global.
    Global(Rc<str>),
    /// An allowed global applied to a tuple.
    Call(Rc<Nested<(Rc<str>, Vec<Value>)>>),
    /// The argument of `persistent_load`: one of torch's storages.
    Persistent(Rc<Nested<Vec<Value>>>),
}

/// A container and how deeply it is nested: a bound against pickles that would overflow the stack.
#[derive(Debug)]
pub struct Nested<T> {
    /// The container's content.
    pub inner: T,
    depth: usize,
}

/// A list or dict. It must be filled before it is put into another, so that its depth is known by
/// then: a container can neither hold itself nor nest without end.
#[derive(Debug, Default)]
pub struct Filled<T> {
    items: RefCell<T>,
    depth: Cell<usize>,
    /// Whether another container holds it: from then on it cannot change.
    held: Cell<bool>,
}

impl<T> Filled<T> {
    /// The items so far.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.items.borrow()
    }

    /// Changes the items, among which `added` will be.
    fn fill(&self, added: &[Value], change: impl FnOnce(&mut T)) -> Result<(), String> {
        let depth = held_depth(added)?;
        if self.held.get() {
            return Err("a list or dict is changed after it was put into another".into());
        }
        self.depth.set(self.depth.get().max(depth));
        change(&mut self.items.borrow_mut());
        Ok(())
    }
}

/// Marks `items` as held and returns the depth of their container.
fn held_depth(items: &[Value]) -> Result<usize, String> {
    for item in items {
        match item {
            Value::List(list) => list.held.set(true),
            Value::Dict(dict) => dict.held.set(true),
            _ => {}
        }
    }
    deeper(items.iter().map(Value::depth).max().unwrap_or(0))
}

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// Most opcodes that are read: a state dict of 100,000 tensors has fewer.
const MAX_OPCODES: usize = 20_000_000;

/// Globals that a state dict needs.
const ALLOWED: [&str; 12] = [
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch DoubleStorage",
    "torch HalfStorage",
    "torch BFloat16Storage",
    "torch LongStorage",
    "torch IntStorage",
    "torch ShortStorage",
    "torch ByteStorage",
    "torch BoolStorage",
];

impl Value {
    fn depth(&self) -> usize {
        match self {
            Value::Tuple(t) | Value::Persistent(t) => t.depth,
            Value::Call(c) => c.depth,
            Value::List(l) => l.depth.get(),
            Value::Dict(d) => d.depth.get(),
            _ => 0,
        }
    }

    /// Where a shared container lies in memory; `None` for other values.
    pub fn address(&self) -> Option<*const ()> {
        match self {
            Value::Tuple(t) | Value::Persistent(t) => Some(Rc::as_ptr(t).cast()),
            Value::Call(c) => Some(Rc::as_ptr(c).cast()),
            Value::List(l) => Some(Rc::as_ptr(l).cast()),
            Value::Dict(d) => Some(Rc::as_ptr(d).cast()),
            _ => None,
        }
    }

    /// The number, if it is an `Int`.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The string, if it is a `Text`.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }

    /// Entries of a dict or an OrderedDict.
    pub fn entries(&self) -> Option<Vec<(Value, Value)>> {
        match self {
            Value::Dict(d) => Some(d.borrow().clone()),
            _ => None,
        }
    }
}

/// Reads one pickle from the front of `bytes`. Returns it and its length in bytes.
///
/// # Errors
/// What is not allowed or damaged, and at which byte.
pub fn read(bytes: &[u8]) -> Result<(Value, usize), String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPCODES {
        let place = machine.at;
        let opcode = machine.byte()?;
        if opcode == b'.' {
            return Ok((machine.pop()?, machine.at));
        }
        machine
            .step(opcode)
            .map_err(|reason| format!("{reason} (at byte {place} of the pickle)"))?;
    }
    Err(format!("more than {MAX_OPCODES} opcodes"))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the pickle ends early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn text(&mut self, n: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "a text is not UTF-8")?;
        Ok(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|b| *b == b'\n')
            .ok_or("the pickle ends early")?;
        let line = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.byte()?;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<&Value, String> {
        self.stack.last().ok_or_else(|| "the stack is empty".into())
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        let value = match opcode {
            // PROTO, FRAME: nothing about the content.
            0x80 => return self.take(1).map(drop),
            0x95 => return self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b'q' | b'r' | 0x94 => return self.put(opcode),
            b'h' | b'j' => self.get(opcode)?,
            b's' | b'u' | b'a' | b'e' | b'b' => return self.fill(opcode),
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
            0x8a => self.long()?,
            b'G' => Value::Float(f64::from_bits(self.number(8)?.swap_bytes())),
            b'X' | b'T' => {
                let n = self.number(4)? as usize;
                self.text(n)?
            }
            0x8c | b'U' => {
                let n = self.number(1)? as usize;
                self.text(n)?
            }
            b']' => Value::List(Rc::default()),
            b'}' => Value::Dict(Rc::default()),
            b')' => tuple(Vec::new())?,
            b't' => tuple(self.pop_to_mark()?)?,
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let mut items: Vec<_> = (0..n).map(|_| self.pop()).collect::<Result<_, _>>()?;
                items.reverse();
                tuple(items)?
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                global(&module, &name)?
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let [module, name] = [&module, &name].map(|v| v.as_text().unwrap_or("?"));
                global(module, name)?
            }
            b'R' => self.call()?,
            b'Q' => match self.pop()? {
                Value::Tuple(t) => Value::Persistent(t),
                _ => return Err("a persistent id is not a tuple".into()),
            },
            _ => {
                let shown = char::from(opcode).escape_default();
                return Err(format!("opcode 0x{opcode:02x} ({shown}) is not allowed"));
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Result<(), String> {
        let key = match opcode {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        let value = self.top()?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<Value, String> {
        let key = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
        self.memo
            .get(&key)
            .cloned()
            .ok_or_else(|| format!("memo {key} is empty"))
    }

    /// Two's complement, little endian. Only the magic number, whose value does not matter, is
    /// longer than 64 bits.
    fn long(&mut self) -> Result<Value, String> {
        let n = usize::from(self.byte()?);
        let bytes = self.take(n)?;
        if n > 8 {
            return Ok(Value::None);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let start = if negative { -1i64 } else { 0 };
        let value = bytes
            .iter()
            .rev()
            .fold(start, |v, b| v << 8 | i64::from(*b));
        Ok(Value::Int(value))
    }

    /// SETITEM(S), APPEND(S), BUILD.
    fn fill(&mut self, opcode: u8) -> Result<(), String> {
        let items = match opcode {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            b'a' | b'b' => vec![self.pop()?],
            _ => self.pop_to_mark()?,
        };
        match (opcode, self.top()?) {
            (b's' | b'u', Value::Dict(dict)) => {
                let pairs = items.chunks_exact(2);
                let pairs = pairs.map(|pair| (pair[0].clone(), pair[1].clone()));
                dict.fill(&items, |all| all.extend(pairs))
            }
            (b'a' | b'e', Value::List(list)) => {
                list.fill(&items, |all| all.extend(items.iter().cloned()))
            }
            // Attributes of a state dict (`_metadata`): nothing that a network needs.
            (b'b', Value::Dict(_)) => Ok(()),
            _ => Err("an item is put into something that holds none".into()),
        }
    }

    /// REDUCE: an OrderedDict becomes a dict, the rest stays a call.
    fn call(&mut self) -> Result<Value, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(name)) = (arguments, function) else {
            return Err("a call of something that is no global".into());
        };
        if &*name == "collections OrderedDict" {
            return Ok(Value::Dict(Rc::default()));
        }
        let depth = deeper(arguments.depth)?;
        let inner = (name, arguments.inner.clone());
        Ok(Value::Call(Rc::new(Nested { inner, depth })))
    }
}

fn global(module: &str, name: &str) -> Result<Value, String> {
    let full = format!("{module} {name}");
    if ALLOWED.contains(&full.as_str()) {
        return Ok(Value::Global(full.into()));
    }
    Err(format!("the global {module}.{name} is not allowed"))
}

fn deeper(depth: usize) -> Result<usize, String> {
    match depth {
        0..MAX_DEPTH => Ok(depth + 1),
        _ => Err(format!("nested more than {MAX_DEPTH} deep")),
    }
}

fn tuple(items: Vec<Value>) -> Result<Value, String> {
    let depth = held_depth(&items)?;
    Ok(Value::Tuple(Rc::new(Nested {
        inner: items,
        depth,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pickle_by_hand() {
        // {"a": (1, -2), "b": [True]} as protocol 2 writes it.
        let bytes =
            b"\x80\x02}(X\x01\x00\x00\x00aK\x01J\xfe\xff\xff\xff\x86X\x01\x00\x00\x00b]\x88au.rest";
        let (value, used) = read(bytes).unwrap();
        assert_eq!(used, bytes.len() - 4);
        let entries = value.entries().unwrap();
        assert_eq!(entries[0].0.as_text(), Some("a"));
        let Value::Tuple(pair) = &entries[0].1 else {
            panic!("{:?}", entries[0].1)
        };
        let numbers: Vec<_> = pair.inner.iter().map(Value::as_int).collect();
        assert_eq!(numbers, [Some(1), Some(-2)]);
    }

    #[test]
    fn dicts_lie_in_dicts_as_metadata_of_a_state_dict_do() {
        // {"_metadata": {"": {"version": 1}}}, the innermost finished first.
        let bytes = b"\x80\x02}X\x09\x00\x00\x00_metadata}X\x00\x00\x00\x00}X\x07\x00\x00\x00versionK\x01sss.";
        let (value, _) = read(bytes).unwrap();
        let inner = |value: &Value| value.entries().unwrap()[0].1.clone();
        assert_eq!(inner(&inner(&inner(&value))).as_int(), Some(1));
    }

    #[test]
    fn what_is_not_allowed_is_named_and_never_run() {
        let says = |bytes: &[u8], words: &str| {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        says(
            b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
            "os.system is not allowed (at byte 2",
        );
        says(b"\x80\x02cbuiltins\neval\n.", "builtins.eval");
        says(b"\x80\x02i", "opcode 0x69 (i)");
        says(b"\x80\x02}", "ends early");
        says(b"u.", "no mark");
        says(b"h\x05.", "memo 5 is empty");
        says(&[&b")"[..], &[0x85; 70]].concat(), "nested more than 64");
        // 70 lists, each in the one before.
        says(
            &[vec![b']'; 70], vec![b'a'; 69]].concat(),
            "nested more than 64",
        );
        // A list in itself, and one that grows where it lies: both could nest without end.
        says(b"]q\x00h\x00a.", "after it was put into another");
        says(b"]]q\x00ah\x00Na.", "after it was put into another");
    }
}
