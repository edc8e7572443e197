//! Metadata of the methods.

/// The category of a method; `help` lists categories in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Category {
    Blockchain,
    Control,
    Generating,
    Mining,
    Network,
    Rawtransactions,
    Util,
    /// Not listed, as in the reference; `help` explains it when asked by name.
    Hidden,
}

impl Category {
    /// The categories that `help` lists, in order.
    pub(crate) const LISTED: [Self; 7] = [
        Self::Blockchain,
        Self::Control,
        Self::Generating,
        Self::Mining,
        Self::Network,
        Self::Rawtransactions,
        Self::Util,
    ];
}

/// A method's name, its parameters (optional ones end in `?`, `|` separates alternative names, `...` stands for any
/// number more), and a description.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) category: Category,
    pub(crate) params: &'static [&'static str],
    pub(crate) about: &'static str,
}

impl Method {
    /// The first line of its help: how to call it.
    pub(crate) fn signature(&self) -> String {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|param| {
                let name = param.trim_end_matches('?').split('|').next().unwrap_or(param);
                if param.ends_with('?') { format!("( {name} )") } else { name.to_owned() }
            })
            .collect();
        format!("{} {}", self.name, params.join(" ")).trim_end().to_owned()
    }

    /// Its help: how to call it, and what it does.
    pub(crate) fn usage(&self) -> String {
        format!("{}\n\n{}", self.signature(), self.about)
    }

    /// The position of the parameter with this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.trim_end_matches('?').split('|').any(|known| known == name))
    }
}
