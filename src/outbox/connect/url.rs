//! Text of a database URL -> its parts, decoded and checked, before anything is connected. An error
//! has the part that is wrong, and never its content. Pure.

use secrecy::{ExposeSecret, SecretString};

use crate::api::address::{Host, InvalidAddress, port};

/// Parts of a URL `postgres://user:password@host:port/name?parameters`. A parameter overrides the
/// part of the URL that it stands for.
#[derive(Default)]
pub(super) struct DatabaseUrl {
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) host: Option<Host>,
    pub(super) port: Option<u16>,
    pub(super) database: Option<String>,
    /// Parameter `options`: settings of the session.
    pub(super) options: Option<String>,
    /// Parameters with paths of certificate files: `sslrootcert`, `sslcert` and `sslkey`.
    pub(super) ca_file: Option<String>,
    pub(super) certificate_file: Option<String>,
    pub(super) key_file: Option<String>,
}

/// Part of a URL, as people know it.
type Part = &'static str;

/// Why a URL cannot be used. The text continues "the URL in ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// The text is no URL of PostgreSQL.
    #[error("is not a URL of the form postgres://user:password@host:port/database")]
    Form,
    /// A part has characters that must be percent-encoded.
    #[error(
        "has a {0} with a character that must be percent-encoded: write %25 for %, %2F for /, %3F \
         for ?, %23 for #, %40 for @"
    )]
    Encoding(Part),
    /// A part is not UTF-8 or contains NUL after it was decoded.
    #[error("has a {0} that is not text: encode it as UTF-8, without %00")]
    NotText(Part),
    /// The URL has a character that no URL has, such as a space or a tab.
    #[error("contains a space or a control character: percent-encode it, %20 for a space")]
    Space,
    /// The host is wrong.
    #[error("has a wrong host or port: it {0}")]
    Address(InvalidAddress),
}

impl From<InvalidAddress> for InvalidUrl {
    fn from(error: InvalidAddress) -> Self {
        Self::Address(error)
    }
}

impl DatabaseUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// The first part that cannot be used.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(InvalidUrl::Form)?;
        if rest.contains(|c: char| c == ' ' || c.is_control()) {
            return Err(InvalidUrl::Space);
        }
        let (base, query) = split(rest)?;
        let mut url = Self::default();
        url.read_base(base)?;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            url.read_parameter(parameter)?;
        }
        Ok(url)
    }

    fn read_base(&mut self, base: &str) -> Result<(), InvalidUrl> {
        let (authority, database) = base.split_once('/').unwrap_or((base, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        self.read_login(login)?;
        self.database = filled("database", database)?;
        self.read_address(address)
    }

    /// Reads `user:password`, or a user without a password.
    fn read_login(&mut self, login: &str) -> Result<(), InvalidUrl> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        self.user = filled("user", user)?;
        self.password = match password {
            Some(password) => Some(decoded("password", password)?.into()),
            None => None,
        };
        Ok(())
    }

    fn read_address(&mut self, address: &str) -> Result<(), InvalidUrl> {
        if address.contains(',') {
            return Err(InvalidAddress::Several.into());
        }
        let (host, number) = split_port(address);
        if let Some(host) = filled("host", host)? {
            self.host = Some(host.parse()?);
        }
        if let Some(number) = number.filter(|number| !number.is_empty()) {
            self.port = Some(port(number)?);
        }
        Ok(())
    }

    /// Reads `name=value`. Parameters that the relay has no use for are ignored.
    fn read_parameter(&mut self, parameter: &str) -> Result<(), InvalidUrl> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "host" | "hostaddr" => {
                self.host = Some(decoded("parameter 'host'", value)?.parse()?);
            }
            "port" => self.port = Some(port(value)?),
            "dbname" => self.database = filled("parameter 'dbname'", value)?,
            "user" => self.user = filled("parameter 'user'", value)?,
            "password" => {
                self.password = Some(decoded("parameter 'password'", value)?.into());
            }
            "options" => self.add_options(&decoded("parameter 'options'", value)?),
            "sslrootcert" => self.ca_file = filled("parameter 'sslrootcert'", value)?,
            "sslcert" => self.certificate_file = filled("parameter 'sslcert'", value)?,
            "sslkey" => self.key_file = filled("parameter 'sslkey'", value)?,
            _ => {}
        }
        Ok(())
    }

    fn add_options(&mut self, options: &str) {
        // As in forms, a plus stands for a space.
        let options = options.replace('+', " ");
        self.options = Some(match self.options.take() {
            Some(before) => format!("{before} {options}"),
            None => options,
        });
    }

    /// Password, or an empty one: without any, the client library would look for one in the file
    /// `.pgpass` of the user that runs this program.
    pub(super) fn password(&self) -> &str {
        self.password
            .as_ref()
            .map_or("", |password| password.expose_secret())
    }
}

/// Splits off the parameters. A `#`, and a `/` or `?` in user or password, would cut the URL in the
/// wrong place.
fn split(rest: &str) -> Result<(&str, &str), InvalidUrl> {
    let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if !rest[..cut].contains('@') && rest[cut..].contains('@') && rest[..cut].contains(':') {
        return Err(InvalidUrl::Encoding("user or password"));
    }
    if rest.contains('#') {
        return Err(InvalidUrl::Encoding("password or another part"));
    }
    Ok(rest.split_once('?').unwrap_or((rest, "")))
}

/// Splits the port off an address; `None` if it has none.
fn split_port(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, number)) if !number.ends_with(']') => (host, Some(number)),
        _ => (address, None),
    }
}

/// Decoded text; `None` if it is empty.
fn filled(part: Part, text: &str) -> Result<Option<String>, InvalidUrl> {
    let text = decoded(part, text)?;
    Ok((!text.is_empty()).then_some(text))
}

/// Text with its percent-encoded bytes decoded.
fn decoded(part: Part, text: &str) -> Result<String, InvalidUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let byte = hex(*high)
                    .zip(hex(*low))
                    .ok_or(InvalidUrl::Encoding(part))?;
                (byte.0 << 4 | byte.1, after)
            }
            (b'%', _) => return Err(InvalidUrl::Encoding(part)),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(InvalidUrl::NotText(part)),
    }
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User, password, host, port and database of a URL.
    type Read<'a> = (&'a str, &'a str, &'a str, u16, &'a str);

    fn parts(url: &DatabaseUrl) -> Read<'_> {
        (
            url.user.as_deref().unwrap_or_default(),
            url.password(),
            url.host.as_ref().map(Host::as_str).unwrap_or_default(),
            url.port.unwrap_or_default(),
            url.database.as_deref().unwrap_or_default(),
        )
    }

    #[test]
    fn parts_are_decoded_and_parameters_override_them() {
        for (text, expected) in [
            ("postgres://u:p@h:1/d", ("u", "p", "h", 1, "d")),
            ("postgresql://u@h/d", ("u", "", "h", 0, "d")),
            ("postgres://u:p@[::1]:5/d", ("u", "p", "::1", 5, "d")),
            ("postgres://u:p@[::1]/d", ("u", "p", "::1", 0, "d")),
            (
                "postgres://a%40b:%23%2f%3F%25%C3%A4@h/d%20x",
                ("a@b", "#/?%ä", "h", 0, "d x"),
            ),
            ("postgres://u:a@b@h/d", ("u", "a@b", "h", 0, "d")),
            ("postgres://u:a:b@h/d", ("u", "a:b", "h", 0, "d")),
            ("postgres://u:😀@h/d", ("u", "😀", "h", 0, "d")),
            (
                "postgres://u:p@h:1/d?host=[::2]&port=7&dbname=e&user=v&password=q+r&sslmode=off",
                ("v", "q+r", "::2", 7, "e"),
            ),
            ("postgres:///d?host=/var/run", ("", "", "/var/run", 0, "d")),
            ("postgres://%2Fvar%2Frun/d", ("", "", "/var/run", 0, "d")),
        ] {
            let url = DatabaseUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parts(&url), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_by_its_part() {
        use InvalidAddress::{Brackets, Colon, Port, Several};
        use InvalidUrl::{Address, Encoding, Form, NotText, Space};
        for (text, expected) in [
            ("hunter2", Form),
            ("mysql://u:p@h/d", Form),
            ("postgres:u:p@h/d", Form),
            ("postgres://u:a%b@h/d", Encoding("password")),
            ("postgres://u:100%@h/d", Encoding("password")),
            ("postgres://u%zz@h/d", Encoding("user")),
            ("postgres://u:p@h/d%", Encoding("database")),
            ("postgres://u:a/b@h/d", Encoding("user or password")),
            ("postgres://u:a?b@h/d", Encoding("user or password")),
            ("postgres://u:a#b@h/d", Encoding("user or password")),
            ("postgres://u:p@h/d#x", Encoding("password or another part")),
            (
                "postgres://u@h/d?password=%",
                Encoding("parameter 'password'"),
            ),
            ("postgres://u:%FF@h/d", NotText("password")),
            ("postgres://u:a%00@h/d", NotText("password")),
            ("postgres://u:a b@h/d", Space),
            ("postgres://u:a\tb@h/d", Space),
            ("postgres://u:p@a,b/d", Address(Several)),
            ("postgres://u:p@a:1,b:2/d", Address(Several)),
            ("postgres://u:p@h/d?host=a,b", Address(Several)),
            ("postgres://u:p@[h]/d", Address(Brackets)),
            ("postgres://u:p@::1/d", Address(Colon)),
            ("postgres://u:p@h:99999/d", Address(Port)),
            ("postgres://u:p@h:0/d", Address(Port)),
            ("postgres://u:p@h:port/d", Address(Port)),
            ("postgres://u:p@h/d?port=x", Address(Port)),
        ] {
            let error = DatabaseUrl::parse(text).err();
            assert_eq!(error, Some(expected), "{text}");
        }
    }
}
