//! Edits that leave the rest alone.

use bytes::Bytes;
use provost_mcp::{JsonFault, RawJson, RawObject, array_items, array_of, canonical_bytes};

fn raw(text: &str) -> RawJson {
    RawJson::from_checked(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn edits() {
    let text = r#"{ "z" : 1.50, "n\u0061me":"old", "_meta": {"k" : [ ] }, "big":12345678901234567890 }"#;
    let mut object = RawObject::parse(&raw(text)).unwrap();
    assert_eq!(object.get_text("name").as_deref(), Some("old"), "keys are compared decoded");
    assert_eq!(object.get("z").unwrap().as_str(), "1.50");
    assert!(object.get_text("z").is_none() && object.get_object("z").is_none());
    object.set_text("name", "n\"ew");
    object.set_in("_meta", "new", RawJson::NULL);
    object.set_in("made", "inner", raw("[1 ]"));
    object.set_default("z", || RawJson::NULL);
    assert!(object.remove("absent").is_none());
    assert_eq!(
        object.finish().as_str(),
        r#"{"z":1.50,"n\u0061me":"n\"ew","_meta":{"k":[ ],"new":null},"big":12345678901234567890,"made":{"inner":[1 ]}}"#
    );
}

#[test]
fn an_unchanged_object_is_the_same_bytes() {
    let text = raw(r#"{ "a" : 1 }"#);
    let object = RawObject::parse(&text).unwrap();
    let same = object.finish();
    assert_eq!(same.as_bytes().as_ptr(), text.as_bytes().as_ptr());
    let mut object = RawObject::parse(&text).unwrap();
    assert_eq!(object.text().as_bytes().as_ptr(), text.as_bytes().as_ptr(), "and stays");
    object.set_text("b", "2");
    assert_eq!((object.text().as_str(), object.len()), (r#"{"a":1,"b":"2"}"#, 2));
}

#[test]
fn one_member_is_found_without_the_others() {
    let text = raw(r#" { "z" : {"a":[1, "}"]}, "n\u0061me":"old" , "name2": -1.5e3 } "#);
    let object = RawObject::parse(&text).unwrap();
    for key in ["z", "name", "name2", "a", "", "n\\u0061me"] {
        assert_eq!(text.member(key), object.get(key), "{key}");
    }
    assert_eq!(text.member("z").unwrap().as_str(), r#"{"a":[1, "}"]}"#);
    for other in ["[1]", "{}", "\"name\"", "1", "{ }"] {
        assert!(raw(other).member("name").is_none(), "{other}");
    }
}

#[test]
fn removing_keeps_order() {
    let mut object = RawObject::parse(&raw(r#"{"a":1,"b":2,"c":3}"#)).unwrap();
    assert_eq!(object.remove("b").unwrap().as_str(), "2");
    assert_eq!(object.finish().as_str(), r#"{"a":1,"c":3}"#);
    assert_eq!(RawObject::new().finish().as_str(), "{}");
}

#[test]
fn other_shapes() {
    assert_eq!(RawObject::parse(&raw("[1]")).unwrap_err(), JsonFault::NotAnObject);
    assert_eq!(array_items(&raw("{}")).unwrap_err(), JsonFault::NotAnArray);
    let items = array_items(&raw(r#"[ 1.0 , {"a" :2}, [] ]"#)).unwrap();
    assert_eq!(array_of(&items).as_str(), r#"[1.0,{"a" :2},[]]"#);
}

#[test]
fn texts() {
    for text in
        ["", "plain", "q\"b\\s/\u{8}\u{c}\n\r\t\u{1}", "é😀", "\u{7f}", "io.provost/audit", "eight by\"", "a\u{1f}b"]
    {
        let json = RawJson::from_text(text);
        assert_eq!(json.as_text().as_deref(), Some(text));
        assert_eq!(json.as_str(), serde_json::to_string(text).unwrap());
    }
    assert_eq!(raw(r#""\ud83d\ude00\u00e9\/""#).as_text().as_deref(), Some("😀é/"));
    assert!(raw(r#""\ud83d""#).as_text().is_none(), "a lone surrogate is no text");
    assert!(raw("1").as_text().is_none());
}

#[test]
fn canonical_form() {
    let same = [
        r#"{"a":[1,{"c":"é","b":true}],"d":null}"#,
        "{ \"d\" : null, \"\\u0061\" : [ 1 , { \"b\" : true , \"c\" : \"\\u00e9\" } ] }",
    ];
    let first = canonical_bytes(&raw(same[0]));
    assert_eq!(first, canonical_bytes(&raw(same[1])));
    for other in [r#"{"a":[{"c":"é","b":true},1],"d":null}"#, r#"{"a":[1.0,{"c":"é","b":true}],"d":null}"#] {
        assert_ne!(first, canonical_bytes(&raw(other)));
    }
}
