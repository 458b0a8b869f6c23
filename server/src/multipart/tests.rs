use super::*;

const KIND: &str = "multipart/form-data; charset=utf-8; boundary=\"a b\"";

/// All parts of a form that comes in pieces of `n` bytes.
fn parts(form: &[u8], n: usize) -> Result<Vec<(PartHead, Vec<u8>)>, MultipartError> {
    let mut multipart = Multipart::new(KIND)?;
    let mut parts: Vec<(PartHead, Vec<u8>)> = Vec::new();
    let mut is_open = false;
    for piece in form.chunks(n) {
        multipart.push(piece);
        while let Some(piece) = multipart.next()? {
            match piece {
                Piece::Begin(head) => {
                    assert!(!is_open);
                    is_open = true;
                    parts.push((head, Vec::new()));
                }
                Piece::Data(data) => {
                    assert!(is_open && !data.is_empty());
                    parts.last_mut().unwrap().1.extend(data);
                }
                Piece::End => is_open = false,
            }
        }
        assert!(multipart.buffer.len() <= MAX_HEAD + n);
    }
    multipart.finish().map(|()| parts)
}

fn head(name: &str, filename: Option<&str>) -> PartHead {
    PartHead {
        name: name.to_owned(),
        filename: filename.map(str::to_owned),
    }
}

#[test]
fn forms_are_the_same_however_they_come() {
    let form = b"before\r\n--a b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n\
        batch\r\n--a b \t\r\ncontent-disposition: form-data; filename=\"x\\\" %22;y=.txt\"; \
        name=file\r\nContent-Type: text/plain\r\n\r\nline\r\n--a\r\n--a bc--\r\n\r\n--a b\r\n\
        Content-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--a b--\r\nafter";
    // A line that begins as the boundary does is one, whatever follows: "--a bc" is refused.
    assert_eq!(parts(form, 1000), Err(MultipartError::Boundary));
    let form = String::from_utf8(form.to_vec())
        .unwrap()
        .replace("--a bc--", "--a-b");
    let expected = vec![
        (head("purpose", None), b"batch".to_vec()),
        (
            head("file", Some("x\" \";y=.txt")),
            b"line\r\n--a\r\n--a-b\r\n".to_vec(),
        ),
        (head("empty", None), Vec::new()),
    ];
    for n in 1..form.len() {
        assert_eq!(
            parts(form.as_bytes(), n).unwrap(),
            expected,
            "{n} bytes at a time"
        );
    }
}

#[test]
fn any_bytes_go_through() {
    let mut seed = 1_u32;
    let mut draw = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for _ in 0..300 {
        let data: Vec<u8> = (0..draw(300))
            .map(|_| b"\r\n-a bc"[draw(7) as usize])
            .collect();
        if memmem::find(&[b"\r\n", &data[..], b"\r\n"].concat(), b"\r\n--a b").is_some() {
            continue;
        }
        let form = [
            &b"--a b\r\nContent-Disposition: form-data; name=x\r\n\r\n"[..],
            &data,
            b"\r\n--a b--\r\n",
        ]
        .concat();
        for n in [1, 2, 7, 1000] {
            assert_eq!(parts(&form, n).unwrap(), [(head("x", None), data.clone())]);
        }
    }
}

#[test]
fn what_is_no_form_is_refused() {
    for kind in [
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
    ] {
        assert_eq!(
            Multipart::new(kind).unwrap_err(),
            MultipartError::ContentType
        );
    }
    let long = format!("--a b\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    let cases: [(&[u8], MultipartError); 6] = [
        (b"", MultipartError::Unfinished),
        (
            b"--a b\r\nContent-Disposition: form-data; name=x\r\n\r\nhalf",
            MultipartError::Unfinished,
        ),
        (
            b"--a b\r\nContent-Type: text/plain\r\n\r\n",
            MultipartError::Disposition,
        ),
        (b"--a b\r\n\r\ndata", MultipartError::Disposition),
        (
            b"--a b\r\nContent-Disposition: form-data; name=x\r\nContent-Transfer-Encoding: base64\
              \r\n\r\nQQ==\r\n--a b--",
            MultipartError::Encoding("base64".to_owned()),
        ),
        (long.as_bytes(), MultipartError::LongHead),
    ];
    for (form, error) in cases {
        for n in [1, 1000] {
            let found = parts(form, n);
            // The empty form comes in no piece at all.
            assert_eq!(
                found,
                Err(error.clone()),
                "{}",
                String::from_utf8_lossy(form)
            );
        }
    }
}
