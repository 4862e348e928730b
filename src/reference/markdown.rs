//! A page as it grows: headings, paragraphs, tables, blocks of code.

/// Columns of a paragraph.
const WIDTH: usize = 120;

pub(super) struct Page(String);

impl Page {
    /// `introduction` is a paragraph.
    pub(super) fn new(title: &str, introduction: &str) -> Self {
        let mut page = Self(format!("# {title}\n"));
        page.paragraph(introduction);
        page.paragraph("This page is made from the source by a test: a change here is lost.");
        page
    }

    pub(super) fn heading(&mut self, title: &str) {
        self.0 += &format!("\n## {title}\n");
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        let mut columns = 0;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            let starts_line = columns == 0 || columns + 1 + length > WIDTH;
            self.0.push(if starts_line { '\n' } else { ' ' });
            self.0 += word;
            columns = if starts_line { length } else { columns + 1 + length };
        }
        self.0.push('\n');
    }

    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        self.0.push('\n');
        self.row(&head);
        self.row(&["---"; N]);
        for row in rows {
            self.row(&row.each_ref().map(|cell| cell.replace('|', "\\|").replace('\n', " ")));
        }
    }

    pub(super) fn code(&mut self, text: &str) {
        let trimmed: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        self.0 += &format!("\n```text\n{}\n```\n", trimmed.join("\n"));
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn row(&mut self, cells: &[impl AsRef<str>]) {
        for cell in cells {
            self.0 += &format!("| {} ", cell.as_ref());
        }
        self.0 += "|\n";
    }
}

/// A link to a heading of the same page.
pub(super) fn link(text: &str, heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    let anchor: String = kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
    format!("[{text}](#{anchor})")
}

pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}
