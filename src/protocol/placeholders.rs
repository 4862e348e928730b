//! Text with `$name` and `${name}` for what is put in their place, and `$$` for a dollar.

/// A part of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    /// A name, without the dollar; empty where none follows it.
    Name(&'a str),
}

/// The parts of a text, in their order.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let Some(after) = rest.strip_prefix('$') else {
            let (piece, after) = rest.split_at(rest.find('$').unwrap_or(rest.len()));
            rest = after;
            return (!piece.is_empty()).then_some(Piece::Text(piece));
        };
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            return Some(Piece::Text("$"));
        }
        let (name, after) = split_name(after);
        rest = after;
        Some(Piece::Name(name))
    })
}

/// Splits what follows a dollar into the name and the rest.
fn split_name(text: &str) -> (&str, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return (name, rest);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::Piece::{Name, Text};
    use super::*;

    #[test]
    fn names_dollars_and_text_are_told_apart() {
        let all: Vec<_> = pieces("a$b ${c}d$$e$").collect();
        assert_eq!(all, [Text("a"), Name("b"), Text(" "), Name("c"), Text("d"), Text("$"), Text("e"), Name("")]);
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("${open").collect::<Vec<_>>(), [Name(""), Text("{open")]);
    }
}
