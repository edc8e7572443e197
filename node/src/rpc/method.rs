//! What is known of a method besides what it does.

/// A method's name, its parameters (`?` behind optional ones, `...` for any number more), and what it does.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [&'static str],
    pub(crate) about: &'static str,
}

impl Method {
    /// How to call it, and what it does.
    pub(crate) fn usage(&self) -> String {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|param| match param.strip_suffix('?') {
                Some(optional) => format!("( {optional} )"),
                None => (*param).to_owned(),
            })
            .collect();
        format!("{} {}\n\n{}", self.name, params.join(" "), self.about).replace(" \n", "\n")
    }
}
