//! Values of every kind, with right check digits, in the forms people and programs write them.

use provost_data_guards::Kind;

use super::rng::{DIGITS, LOWER, Rng, UPPER};

/// A value, and the words that must stand before it, if digits alone do not say what it is.
pub struct Value {
    pub text: String,
    pub keys: &'static [&'static str],
}

fn plain(text: String) -> Value {
    Value { text, keys: &[] }
}

/// A value of this kind.
pub fn value(kind: Kind, rng: &mut Rng) -> Value {
    match kind {
        Kind::Card => plain(card(rng)),
        Kind::Iban => plain(iban(rng)),
        Kind::Email => plain(email(rng)),
        Kind::Phone => phone(rng),
        Kind::UsSsn => ssn(rng),
        Kind::EsDni => plain(dni(rng)),
        Kind::NlBsn => Value { text: bsn(rng), keys: &["bsn", "burgerservicenummer", "BSN"] },
        Kind::ItFiscalCode => plain(fiscal_code(rng)),
        Kind::DeTaxId => tax_id(rng),
        Kind::PrivateKey => plain(private_key(rng)),
        Kind::AwsKey => {
            let tail = rng.chars(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
            plain(format!("{}{tail}", rng.pick(&["AKIA", "ASIA"])))
        }
        Kind::GithubToken => plain(if rng.below(4) == 0 {
            format!("github_pat_{}_{}", rng.alnum(22), rng.alnum(59))
        } else {
            format!("gh{}_{}", rng.pick(&["p", "o", "u", "s", "r"]), rng.alnum(36))
        }),
        Kind::SlackToken => {
            let (a, b, c) = (rng.digits(12), rng.digits(12), rng.alnum(24));
            plain(format!("xox{}-{a}-{b}-{c}", rng.pick(&["b", "p", "a", "r", "s"])))
        }
        Kind::StripeKey => {
            let tail = rng.alnum(24) + &rng.digits(1);
            plain(format!("{}{tail}", rng.pick(&["sk_live_", "sk_test_", "rk_live_", "rk_test_"])))
        }
        Kind::GoogleKey => plain(format!("AIza{}", rng.base64url(34) + "Z")),
        Kind::Jwt => plain(jwt(rng)),
        Kind::OpenAiKey => plain(match rng.below(3) {
            0 => format!("sk-{}T3BlbkFJ{}", rng.alnum(20), rng.alnum(20)),
            1 => format!("sk-proj-{}T3BlbkFJ{}A", rng.base64url(74), rng.base64url(73)),
            _ => format!("sk-svcacct-{}A", rng.base64url(60)),
        }),
        Kind::AnthropicKey => plain(format!("sk-ant-api03-{}AA", rng.base64url(93))),
        Kind::ServiceToken => plain(match rng.below(5) {
            0 => format!("glpat-{}A1z", rng.base64url(17)),
            1 => format!("npm_{}", rng.alnum(36)),
            2 => format!("hf_{}", rng.chars(34, &[UPPER, LOWER].concat())),
            3 => format!("SG.{}.{}Q", rng.base64url(22), rng.base64url(42)),
            _ => format!("pv_{}_{}aB9", rng.chars(12, LOWER), rng.base64url(40)),
        }),
        Kind::Word | Kind::Path | Kind::External => panic!("no detector finds {kind}"),
    }
}

fn luhn_digit(body: &str) -> u32 {
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let d = u32::from(b - b'0') * if i % 2 == 0 { 2 } else { 1 };
            d / 10 + d % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

/// What people and programs write between the groups of a card, the usual more often.
pub const SEPARATORS: [&str; 17] = [
    "", "", "", " ", " ", "-", "-", ".", "/", "  ", "   ", " - ", "\u{a0}", "\u{202f}", "\u{2009}", "\u{2011}",
    "\u{2013}",
];

fn card(rng: &mut Rng) -> String {
    let (prefix, len) = rng.pick(&[
        ("4", 16),
        ("4", 16),
        ("4", 16),
        ("4", 13),
        ("4", 19),
        ("51", 16),
        ("53", 16),
        ("55", 16),
        ("2221", 16),
        ("2719", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("648", 16),
        ("65", 16),
        ("3530", 16),
        ("36", 14),
        ("38", 14),
        ("62", 16),
        ("62", 19),
        ("6759", 16),
    ]);
    let body = format!("{prefix}{}", rng.digits(len - 1 - prefix.len()));
    let number = format!("{body}{}", luhn_digit(&body));
    let separator = rng.pick(&SEPARATORS);
    let groups: &[usize] = match len {
        16 => &[4, 4, 4, 4],
        19 => &[4, 4, 4, 4, 3],
        15 => &[4, 6, 5],
        14 => &[4, 6, 4],
        _ => return number,
    };
    grouped(&number, groups, separator)
}

pub fn grouped(text: &str, groups: &[usize], separator: &str) -> String {
    let mut at = 0;
    let parts = groups.iter().map(|n| {
        at += n;
        &text[at - n..at]
    });
    parts.collect::<Vec<_>>().join(separator)
}

/// Digits of the number that letters and digits stand for, modulo 97.
fn mod_97(text: &str) -> u32 {
    let digits: String = text.chars().map(|c| c.to_digit(36).expect("a letter or digit").to_string()).collect();
    digits.bytes().fold(0, |n, b| (n * 10 + u32::from(b - b'0')) % 97)
}

fn iban(rng: &mut Rng) -> String {
    let (country, letters, len) = rng.pick(&[
        ("DE", 0, 22),
        ("ES", 0, 24),
        ("FR", 0, 27),
        ("NL", 4, 18),
        ("GB", 4, 22),
        ("IT", 1, 27),
        ("BE", 0, 16),
        ("PL", 0, 28),
        ("CH", 0, 21),
        ("NO", 0, 15),
        ("SE", 0, 24),
        ("MT", 4, 31),
        ("PT", 0, 25),
        ("AT", 0, 20),
    ]);
    let account = rng.chars(letters, UPPER) + &rng.digits(len - 4 - letters);
    let check = 98 - mod_97(&format!("{account}{country}00"));
    let text = format!("{country}{check:02}{account}");
    if rng.below(2) == 0 {
        return text;
    }
    let mut groups = vec![4; len / 4];
    groups.extend((len % 4 > 0).then_some(len % 4));
    grouped(&text, &groups, " ")
}

fn email(rng: &mut Rng) -> String {
    let first = rng.pick(&["ana", "j.smith", "maria-lopez", "x", "Support", "o_brien", "li.wei", "team%ops"]);
    let tail = rng.pick(&["", "", "+news", ".42", "1987"]);
    let (a, b) = (rng.below(9) + 2, rng.below(6) + 3);
    let (host, sub) = (rng.chars(a, LOWER), rng.chars(b, LOWER));
    let top = rng.pick(&["com", "org", "net", "de", "es", "co.uk", "io", "museum", "xn--p1ai"]);
    match rng.below(3) {
        0 => format!("{first}{tail}@{sub}.{host}.{top}"),
        1 => format!("{first}{tail}@{host}-{sub}.{top}"),
        _ => format!("{first}{tail}@{host}.{top}"),
    }
}

fn phone(rng: &mut Rng) -> Value {
    let (a, b) = (rng.digits(3), rng.digits(4));
    let area = format!("{}{}", rng.below(8) + 2, rng.digits(2));
    let exchange = format!("{}{}", rng.below(8) + 2, rng.digits(2));
    let named = |text| Value { text, keys: &["phone", "mobile", "tel", "fax", "phone_number"] };
    match rng.below(8) {
        0 => plain(format!("+49 170 {}", rng.digits(7))),
        1 => plain(format!("+34 6{} {a} {}", rng.digits(2), rng.digits(3))),
        2 => plain(format!("+1{area}{exchange}{b}")),
        3 => plain(format!("+1 ({area}) {exchange}-{b}")),
        4 => plain(format!("({area}) {exchange}-{b}")),
        5 => plain(format!("{area}-{exchange}-{b}")),
        6 => named(format!("0{} {}", rng.below(800) + 100, rng.digits(7))),
        _ => named(format!("{}{}", rng.below(9) + 1, rng.digits(9))),
    }
}

fn ssn(rng: &mut Rng) -> Value {
    let area = loop {
        let area = rng.below(898) + 1;
        if area != 666 {
            break area;
        }
    };
    let (group, serial) = (rng.below(99) + 1, rng.below(9999) + 1);
    match rng.below(3) {
        0 => Value { text: format!("{area:03}{group:02}{serial:04}"), keys: &["ssn", "SSN", "social_security_number"] },
        _ => plain(format!("{area:03}-{group:02}-{serial:04}")),
    }
}

fn dni(rng: &mut Rng) -> String {
    let number = rng.below(10_000_000);
    let (first, sign) = rng.pick(&[(0, "X"), (1, "Y"), (2, "Z")]);
    let letter = |n: usize| char::from(b"TRWAGMYFPDXBNJZSQVHLCKE"[n % 23]);
    let dash = rng.pick(&["", "", "-"]);
    if rng.below(2) == 0 {
        return format!("{sign}{number:07}{dash}{}", letter(first * 10_000_000 + number));
    }
    let number = number * 10 + rng.below(10);
    format!("{number:08}{dash}{}", letter(number))
}

fn bsn(rng: &mut Rng) -> String {
    loop {
        let body = rng.digits(8);
        let sum: usize = body.bytes().zip((2..=9).rev()).map(|(b, w)| usize::from(b - b'0') * w).sum();
        if !sum.is_multiple_of(11) && sum % 11 != 10 {
            let text = format!("{body}{}", sum % 11);
            return match rng.below(4) {
                0 => grouped(&text, &[4, 2, 3], "."),
                1 => grouped(&text, &[3, 3, 3], " "),
                _ => text,
            };
        }
    }
}

fn fiscal_code(rng: &mut Rng) -> String {
    const ODD: [u32; 36] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
        10, 22, 25, 24, 23,
    ];
    let consonants = "BCDFGLMNPRSTVZ";
    let name = rng.chars(6, consonants);
    let (year, day, place) = (rng.below(100), rng.below(31) + 1, rng.digits(3));
    let month = rng.chars(1, "ABCDEHLMPRST");
    let body = format!("{name}{year:02}{month}{day:02}{}{place}", rng.chars(1, "ABCDEFGHIL"));
    let sum: u32 = body
        .chars()
        .enumerate()
        .map(|(i, c)| {
            let value = c.to_digit(36).expect("a letter or digit");
            if i % 2 == 0 { ODD[value as usize] } else { value - if value > 9 { 10 } else { 0 } }
        })
        .sum();
    format!("{body}{}", char::from(b'A' + (sum % 26) as u8))
}

fn tax_id(rng: &mut Rng) -> Value {
    // Ten digits of which one occurs twice.
    let mut order: Vec<u8> = (0..10).collect();
    (1..10).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
    let (from, to) = (rng.below(9) + 1, rng.below(9) + 1);
    order[to] = if from == to { order[0] } else { order[from] };
    if order[0] == 0 {
        return tax_id(rng);
    }
    let check = order.iter().fold(10u32, |product, d| {
        let sum = (product + u32::from(*d)) % 10;
        let sum = if sum == 0 { 10 } else { sum };
        sum * 2 % 11
    });
    let text: String = order.iter().map(u8::to_string).chain([((11 - check) % 10).to_string()]).collect();
    if rng.below(2) == 0 {
        return plain(grouped(&text, &[2, 3, 3, 3], " "));
    }
    Value { text, keys: &["steuer_id", "Steuer-ID", "idnr", "tax_id"] }
}

/// With `\n` between the lines as JSON has it, or real line ends.
fn private_key(rng: &mut Rng) -> String {
    let end = rng.pick(&["\\n", "\n", "\\r\\n"]);
    let label =
        rng.pick(&["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]);
    let lines: Vec<String> = (0..rng.below(20) + 3).map(|_| rng.base64(64)).collect();
    let headers = if label == "RSA PRIVATE KEY" && rng.below(3) == 0 {
        format!("Proc-Type: 4,ENCRYPTED{end}DEK-Info: AES-128-CBC,{}{end}{end}", rng.hex(32))
    } else {
        String::new()
    };
    format!(
        "-----BEGIN {label}-----{end}{headers}{}{end}{}=={end}-----END {label}-----",
        lines.join(end),
        rng.base64(30)
    )
}

fn jwt(rng: &mut Rng) -> String {
    // {"alg":"RS256","typ":"JWT"} and {"alg":"HS256"}, then {"sub":…
    let header = rng.pick(&[
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9",
    ]);
    let (claims, signature) = (rng.below(200) + 20, rng.pick(&[43, 86, 342]));
    format!("{header}.eyJzdWIi{}.{}", rng.base64url(claims), rng.base64url(signature))
}

/// A value of this kind with its last letter or digit changed, if a check would see that.
pub fn near_miss(kind: Kind, rng: &mut Rng) -> Option<String> {
    if !matches!(kind, Kind::Card | Kind::Iban | Kind::EsDni | Kind::ItFiscalCode) {
        return None;
    }
    let mut text = value(kind, rng).text;
    let last = text.pop()?;
    let other = match last {
        '0'..='9' => DIGITS.chars().nth((last.to_digit(10)? as usize + 1 + rng.below(9)) % 10)?,
        _ => UPPER.chars().nth((usize::from(last as u8 - b'A') + 1 + rng.below(25)) % 26)?,
    };
    text.push(other);
    Some(text)
}
