//! Text to commands: words, fields and options, each with the line they stand on.
//!
//! The grammar is fixed here; what names and values mean is the interpreter's business.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Includes within includes, at the most.
const INCLUDE_DEPTH_MAX: usize = 4;

/// A place in a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// File.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What a script says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Rows of the checklist that it proves.
    pub rows: Vec<u8>,
    /// Section of RFC 8684.
    pub section: String,
    /// The requirement, in a few words.
    pub requires: String,
}

/// A `name=value` pair; a bare word has the value `1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Left of the equals sign.
    pub name: String,
    /// Right of it.
    pub value: String,
}

/// One TCP option, as written: `dss ack=1 dsn=1 ssn=1 len=10`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionText {
    /// First word.
    pub name: String,
    /// The other words.
    pub fields: Vec<Field>,
    /// Ends in `*`: fields that are not named do not matter.
    pub rest: bool,
}

impl OptionText {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }
}

impl fmt::Display for OptionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for Field { name, value } in &self.fields {
            match (name.as_str(), value.as_str()) {
                ("", value) => write!(f, "={value}")?,
                ("fin" | "e" | "b" | "t", "1") => write!(f, " {name}")?,
                (name, value) => write!(f, " {name}={value}")?,
            }
        }
        if self.rest {
            f.write_str(" *")?;
        }
        Ok(())
    }
}

/// Options of a packet, as written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OptionsText {
    /// In order.
    pub list: Vec<OptionText>,
    /// A lone `*` among them: further MPTCP options do not matter.
    pub rest: bool,
}

/// A packet, to inject or to expect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketText {
    /// `p0`, `p1`, …
    pub path: usize,
    /// packetdrill's letters: `S`, `S.`, `.`, `P.`, `F.`, `R`, `R.`; `*` for any.
    pub flags: String,
    /// `seq=`, `ack=`, `len=`, …
    pub fields: Vec<Field>,
    /// Between `<` and `>`; absent if not written.
    pub options: Option<OptionsText>,
}

impl PacketText {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `< p0 …`: a packet arrives.
    Inject(PacketText),
    /// `> p0 …`: the next packet on this path is this one.
    Expect(PacketText),
    /// `>> p0 …`: one of the next packets on this path is this one.
    Await(PacketText),
    /// `never TIME p0 …`: no packet on this path in this time looks like this.
    Never(Duration, PacketText),
    /// `quiet TIME [pN]`: no packet at all.
    Quiet(Duration, Option<usize>),
    /// `wait TIME`.
    Wait(Duration),
    /// Anything else: a verb, plain words, fields.
    Call {
        /// First word.
        verb: String,
        /// Words without `=`.
        words: Vec<String>,
        /// Words with `=`.
        fields: Vec<Field>,
    },
}

/// A line of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where it stands.
    pub place: Place,
    /// As written.
    pub text: String,
    /// What it says.
    pub command: Command,
}

/// A parsed script, includes and all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// What it says about itself.
    pub header: Header,
    /// Its lines.
    pub steps: Vec<Step>,
}

/// Reads a script. `include NAME` takes `lib/NAME.inc` below `lib`'s parent.
///
/// # Errors
/// `file:line: what is wrong`.
pub fn load(file: &Path, lib: &Path) -> Result<Script, String> {
    parse(file, &read(file)?, lib)
}

/// Understands a script's text; `file` only names it.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &Path, text: &str, lib: &Path) -> Result<Script, String> {
    let mut steps = Vec::new();
    let header = header(text).map_err(|e| format!("{}: {e}", file.display()))?;
    add(file, text, lib, 0, &mut steps)?;
    Ok(Script { header, steps })
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

fn add(
    file: &Path,
    text: &str,
    lib: &Path,
    depth: usize,
    steps: &mut Vec<Step>,
) -> Result<(), String> {
    for (i, line) in text.lines().enumerate() {
        let place = Place {
            file: file.to_owned(),
            line: i + 1,
        };
        let code = line.split('#').next().unwrap_or_default().trim();
        if code.is_empty() {
            continue;
        }
        if let Some(name) = code.strip_prefix("include ") {
            if depth == INCLUDE_DEPTH_MAX {
                return Err(format!("{place}: includes are nested too deep"));
            }
            let included = lib.join(format!("{}.inc", name.trim()));
            add(&included, &read(&included)?, lib, depth + 1, steps)?;
            continue;
        }
        let command = command(code).map_err(|e| format!("{place}: {e}\n  {code}"))?;
        steps.push(Step {
            place,
            text: code.to_owned(),
            command,
        });
    }
    Ok(())
}

fn header(text: &str) -> Result<Header, String> {
    let mut header = Header::default();
    let comments = text.lines().map_while(|l| l.strip_prefix('#'));
    for line in comments {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "row" => {
                for row in value.split(',') {
                    let row = row.trim();
                    header.rows.push(
                        row.parse()
                            .map_err(|_| format!("`{row}` is no row number"))?,
                    );
                }
            }
            "section" => value.clone_into(&mut header.section),
            "requires" => value.clone_into(&mut header.requires),
            _ => {}
        }
    }
    Ok(header)
}

fn command(code: &str) -> Result<Command, String> {
    let (verb, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let rest = rest.trim();
    match verb {
        "<" => packet(rest).map(Command::Inject),
        ">" => packet(rest).map(Command::Expect),
        ">>" => packet(rest).map(Command::Await),
        "never" => {
            let (time, rest) = rest
                .split_once(char::is_whitespace)
                .ok_or("`never TIME pN FLAGS …`")?;
            Ok(Command::Never(duration(time)?, packet(rest.trim())?))
        }
        "wait" => duration(rest).map(Command::Wait),
        "quiet" => {
            let mut words = rest.split_whitespace();
            let time = duration(words.next().ok_or("`quiet TIME [pN]`")?)?;
            Ok(Command::Quiet(time, words.next().map(path).transpose()?))
        }
        _ => {
            let (mut words, mut fields) = (Vec::new(), Vec::new());
            for word in rest.split_whitespace() {
                match word.split_once('=') {
                    Some((name, value)) => fields.push(Field {
                        name: name.to_owned(),
                        value: value.to_owned(),
                    }),
                    None => words.push(word.to_owned()),
                }
            }
            Ok(Command::Call {
                verb: verb.to_owned(),
                words,
                fields,
            })
        }
    }
}

/// `p0`, `p1`, …
pub(super) fn path(word: &str) -> Result<usize, String> {
    word.strip_prefix('p')
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("`{word}` is no path; paths are p0, p1, …"))
}

fn packet(text: &str) -> Result<PacketText, String> {
    let (head, options) = match text.split_once('<') {
        None => (text, None),
        Some((head, options)) => {
            let list = options.strip_suffix('>').ok_or("options end in `>`")?;
            (head, Some(options_text(list)))
        }
    };
    let mut words = head.split_whitespace();
    let path = path(words.next().ok_or("which path?")?)?;
    let flags = words.next().ok_or("which flags?")?;
    if flags != "*" && !flags.chars().all(|c| "FSRP.UEW".contains(c)) {
        return Err(format!(
            "`{flags}` are no flags; letters are F S R P . U E W"
        ));
    }
    Ok(PacketText {
        path,
        flags: flags.to_owned(),
        fields: words.map(field).collect(),
        options,
    })
}

fn field(word: &str) -> Field {
    let (name, value) = word.split_once('=').unwrap_or((word, "1"));
    Field {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub(super) fn options_text(list: &str) -> OptionsText {
    let mut out = OptionsText::default();
    for option in list.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        if option == "*" {
            out.rest = true;
            continue;
        }
        let mut words = option.split_whitespace();
        let first = words.next().unwrap_or_default();
        let mut fields = Vec::new();
        let name = match first.split_once('=') {
            None => first,
            Some((name, value)) => {
                fields.push(Field {
                    name: String::new(),
                    value: value.to_owned(),
                });
                name
            }
        };
        let mut rest = false;
        for word in words {
            if word == "*" {
                rest = true;
            } else {
                fields.push(field(word));
            }
        }
        out.list.push(OptionText {
            name: name.to_owned(),
            fields,
            rest,
        });
    }
    out
}

/// `250ms`, `1.5s`, `10us`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; `250ms`, `1.5s` and `10us` are");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        _ => return Err(wrong()),
    };
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(value * unit).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_path_flags_fields_options() {
        let Ok(Command::Expect(p)) =
            command("> p1 P. seq=1 len=10 <dss ack=5 dsn=1 fin *, mss=1460, *>")
        else {
            panic!("no packet");
        };
        assert_eq!((p.path, p.flags.as_str()), (1, "P."));
        assert_eq!(
            (p.get("seq"), p.get("len"), p.get("ack")),
            (Some("1"), Some("10"), None)
        );
        let options = p.options.unwrap();
        assert!(options.rest && options.list.len() == 2);
        assert_eq!(options.list[0].to_string(), "dss ack=5 dsn=1 fin *");
        assert_eq!(options.list[1].to_string(), "mss=1460");
    }

    #[test]
    fn no_options_and_any_options_differ() {
        let none = packet("p0 . <>").unwrap();
        assert_eq!(none.options, Some(OptionsText::default()));
        assert_eq!(packet("p0 .").unwrap().options, None);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, why) in [
            ("> q0 S", "no path"),
            ("> p0 X", "no flags"),
            ("> p0 S <mss=1", "end in"),
            ("wait 10", "no time"),
            ("wait x1s", "no time"),
        ] {
            let error = command(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_header_ends_at_the_first_line_of_code() {
        let text =
            "# row: 24, 25\n# section: 3.1\n# requires: something: this\n\nwait 1s\n# row: 9\n";
        let h = header(text).unwrap();
        assert_eq!(h.rows, [24, 25]);
        assert_eq!(
            (h.section.as_str(), h.requires.as_str()),
            ("3.1", "something: this")
        );
        assert!(header("# row: x").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10us"), Ok(Duration::from_micros(10)));
        assert!(duration("-1s").is_err());
    }
}
