//! A browser, as far as a consent needs one: it keeps cookies, and follows nothing by itself.

use std::collections::BTreeMap;

/// What a page answered.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub location: String,
    pub text: String,
}

/// Cookies of one host.
#[derive(Clone, Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn get(&mut self, url: &str) -> Page {
        self.send(url, None, &[])
    }

    pub fn post(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.send(url, Some(form), headers)
    }

    fn send(&mut self, url: &str, form: Option<String>, headers: &[(&str, &str)]) -> Page {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
            let client = client.build().unwrap();
            let mut request = match form {
                Some(form) => client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form),
                None => client.get(url),
            };
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let carried: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if !carried.is_empty() {
                request = request.header("cookie", carried.join("; "));
            }
            let response = request.timeout(crate::harness::START_LIMIT).send().await.unwrap();
            for set in response.headers().get_all("set-cookie") {
                let pair = set.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                match value {
                    "" => drop(self.cookies.remove(name)),
                    value => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
                }
            }
            let location = response.headers().get("location").map_or("", |v| v.to_str().unwrap()).to_owned();
            Page { status: response.status().as_u16(), location, text: response.text().await.unwrap() }
        })
    }
}
