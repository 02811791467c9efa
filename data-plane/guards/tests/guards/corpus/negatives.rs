//! What is easily taken for a protected value and is none.

use provost_data_guards::Kind;

use super::{
    rng::{LOWER, Rng, UPPER},
    values::{SEPARATORS, grouped, near_miss},
};

/// How many forms there are.
pub const FORMS: usize = 37;

/// A text of this form that holds nothing protected.
pub fn negative(form: usize, rng: &mut Rng) -> String {
    match form {
        0 => uuid(rng),
        1 => rng.hex(40),
        2 => rng.hex(64),
        3 => rng.hex(7),
        4 => format!("ORD-{}", rng.digits(10)),
        5 => rng.digits(16),
        6 => rng.digits(9),
        7 => rng.digits(11),
        8 => timestamp(rng),
        9 => format!("17{}", rng.digits(8)),
        10 => format!("17{}", rng.digits(11)),
        11 => format!("17{}", rng.digits(17)),
        12 => format!("{}.{}.{}", rng.below(30), rng.below(100), rng.below(4000)),
        13 => format!("10.{}.{}.{}:{}", rng.below(256), rng.below(256), rng.below(256), rng.below(65536)),
        14 => format!("0.{}", rng.digits(16)),
        15 => format!("{}.{}", rng.below(90), rng.digits(14)),
        16 => format!("data:image/png;base64,iVBORw0KGgo{}==", rng.base64(600)),
        17 => format!("sha256:{}", rng.hex(64)),
        18 => {
            format!("{}@{}.{}.{}", rng.pick(&["lodash", "serde", "react"]), rng.below(9), rng.below(30), rng.below(9))
        }
        19 => format!("{}@{}x.png", rng.pick(&["logo", "icon-home", "hero"]), rng.below(3) + 1),
        20 => format!("@{} said so", rng.chars(8, LOWER)),
        21 => format!("git@github.com:{}/{}.git", rng.chars(6, LOWER), rng.chars(9, LOWER)),
        22 => format!("user@{}", rng.pick(&["localhost", "db1", "127.0.0.1"])),
        23 => format!("{}{}", rng.digits(8), rng.chars(1, UPPER)),
        24 => format!("task-{}-{}", rng.chars(10, LOWER), rng.chars(20, LOWER)),
        25 => format!("sk-{}-{}-{}", rng.chars(8, LOWER), rng.chars(14, LOWER), rng.chars(12, LOWER)),
        26 => format!("eyJ{}", rng.base64url(80)),
        27 => format!("AKIA{}", rng.alnum(30)),
        28 => format!("-----BEGIN CERTIFICATE-----\\n{}\\n-----END CERTIFICATE-----", rng.base64(64)),
        29 => "a file that starts with -----BEGIN RSA PRIVATE KEY----- must not be in the image".to_owned(),
        30 => grouped(&rng.digits(12), &[4, 4, 4], " "),
        31 => format!("{}-{}-{}", rng.below(30), rng.digits(5), rng.digits(3)),
        32 => loop {
            if let Some(text) = near_miss(rng.pick(Kind::ALL), rng) {
                break text;
            }
        },
        33 => format!("{}+{}", rng.digits(3), rng.digits(9)),
        // Columns of tables.
        34 => grouped(&rng.digits(20), &[4; 5], "  "),
        35 => format!("2021   {}", grouped(&rng.digits(16), &[4; 4], "   ")),
        _ => {
            let digits = rng.digits(16);
            grouped(&digits, &[4; 4], rng.pick(&SEPARATORS))
        }
    }
}

pub fn uuid(rng: &mut Rng) -> String {
    format!("{}-{}-4{}-a{}-{}", rng.hex(8), rng.hex(4), rng.hex(3), rng.hex(3), rng.hex(12))
}

pub fn timestamp(rng: &mut Rng) -> String {
    let (day, h, m, s) = (rng.below(28) + 1, rng.below(24), rng.below(60), rng.below(60));
    format!("2026-{:02}-{day:02}T{h:02}:{m:02}:{s:02}.{}Z", rng.below(12) + 1, rng.digits(6))
}
