//! Resources: what a plugin has under an address, or under all addresses of a form.

use crate::{
    Call, Failure,
    bindings::{
        provost::plugin::types::CallError,
        resources::exports::provost::plugin::resources::{Body, Contents, ResourceInfo, TemplateInfo},
    },
};

type Read = Box<dyn Fn(&Call, &str) -> Result<Body, Failure>>;

/// What is said of a resource, or of those of a template.
struct About {
    name: &'static str,
    title: Option<&'static str>,
    description: Option<&'static str>,
    mime_type: Option<&'static str>,
}

/// One resource.
pub struct Resource {
    uri: &'static str,
    about: About,
    read: Read,
}

/// All resources whose addresses have one form.
pub struct Template {
    uri: &'static str,
    about: About,
    read: Read,
}

macro_rules! described {
    ($($ty:ty),*) => { $(
        impl $ty {
            /// A name for people.
            pub fn title(mut self, title: &'static str) -> Self {
                self.about.title = Some(title);
                self
            }

            /// What it is.
            pub fn description(mut self, description: &'static str) -> Self {
                self.about.description = Some(description);
                self
            }

            /// Such as `text/markdown`.
            pub fn mime_type(mut self, mime_type: &'static str) -> Self {
                self.about.mime_type = Some(mime_type);
                self
            }

            pub(crate) fn read(&self, call: &Call, uri: &str) -> Result<Vec<Contents>, CallError> {
                let body = (self.read)(call, uri).map_err(Failure::of_no_tool)?;
                let mime_type = self.about.mime_type.map(str::to_owned);
                Ok(vec![Contents { uri: uri.to_owned(), mime_type, body }])
            }
        }
    )* };
}

described!(Resource, Template);

impl About {
    fn named(name: &'static str) -> Self {
        Self { name, title: None, description: None, mime_type: None }
    }
}

impl Resource {
    /// What `function` gives, under this address.
    pub fn new<R, F>(uri: &'static str, name: &'static str, function: F) -> Self
    where
        R: IntoBody,
        F: Fn(&Call) -> R + 'static,
    {
        Self { uri, about: About::named(name), read: Box::new(move |call, _| function(call).into_body()) }
    }

    pub(crate) fn is_at(&self, uri: &str) -> bool {
        self.uri == uri
    }

    pub(crate) fn definition(&self) -> ResourceInfo {
        let About { name, title, description, mime_type } = &self.about;
        ResourceInfo {
            uri: self.uri.to_owned(),
            name: (*name).to_owned(),
            title: title.map(str::to_owned),
            description: description.map(str::to_owned),
            mime_type: mime_type.map(str::to_owned),
        }
    }
}

impl Template {
    /// What `function` gives for an address that begins as the template does before its first `{`, and ends as it does
    /// after its last `}`.
    pub fn new<R, F>(uri_template: &'static str, name: &'static str, function: F) -> Self
    where
        R: IntoBody,
        F: Fn(&Call, &str) -> R + 'static,
    {
        let read = Box::new(move |call: &Call, uri: &str| function(call, uri).into_body());
        Self { uri: uri_template, about: About::named(name), read }
    }

    pub(crate) fn is_for(&self, uri: &str) -> bool {
        let before = self.uri.split('{').next().unwrap_or_default();
        let after = self.uri.rsplit('}').next().unwrap_or_default();
        uri.len() >= before.len() + after.len() && uri.starts_with(before) && uri.ends_with(after)
    }

    pub(crate) fn definition(&self) -> TemplateInfo {
        let About { name, title, description, mime_type } = &self.about;
        TemplateInfo {
            uri_template: self.uri.to_owned(),
            name: (*name).to_owned(),
            title: title.map(str::to_owned),
            description: description.map(str::to_owned),
            mime_type: mime_type.map(str::to_owned),
        }
    }
}

/// What a resource may be: a text, bytes, or a `Result` of one of them and [`Failure`].
pub trait IntoBody {
    /// The text or the bytes.
    fn into_body(self) -> Result<Body, Failure>;
}

impl IntoBody for String {
    fn into_body(self) -> Result<Body, Failure> {
        Ok(Body::Text(self))
    }
}

impl IntoBody for &str {
    fn into_body(self) -> Result<Body, Failure> {
        Ok(Body::Text(self.to_owned()))
    }
}

impl IntoBody for Vec<u8> {
    fn into_body(self) -> Result<Body, Failure> {
        Ok(Body::Blob(self))
    }
}

impl<T: IntoBody> IntoBody for Result<T, Failure> {
    fn into_body(self) -> Result<Body, Failure> {
        self?.into_body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_for_what_has_its_beginning_and_end() {
        let note = Template::new("note:///{day}.md", "note", |_: &Call, uri: &str| uri.to_owned());
        for (uri, expect) in [
            ("note:///monday.md", true),
            ("note:///.md", true),
            ("note:///monday.txt", false),
            ("file:///monday.md", false),
            ("note:///md", false),
        ] {
            assert_eq!(note.is_for(uri), expect, "{uri}");
        }
        let read = note.read(&Call::for_tests(), "note:///monday.md").unwrap();
        assert!(matches!(&read[0].body, Body::Text(text) if text == "note:///monday.md"));
    }
}
