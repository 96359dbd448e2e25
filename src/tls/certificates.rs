//! The rustls configuration for a mode and its files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::mode::Mode;
use super::parameters::Parameters;
use crate::error::ConfigError;

/// The rustls configuration for a mode and its files.
pub(super) fn build(mode: Mode, parameters: &Parameters, home: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| ConfigError::new("sslmode", "asks for a version of TLS that is not built in"))?;
    let builder = match trust(mode, parameters, home)? {
        Trust::Host(roots) => builder.with_root_certificates(roots),
        trust => builder.dangerous().with_custom_certificate_verifier(Arc::new(WithoutHostName { trust, provider })),
    };
    let mut config = match client_certificate(parameters).filter(|_| mode != Mode::Disable) {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (certificates, key) = files?;
            builder.with_client_auth_cert(certificates, key).map_err(|_| {
                ConfigError::new("sslcert", "does not fit the private key in sslkey, or is of an unknown kind")
            })?
        }
    };
    // As libpq does; servers require it if `sslnegotiation` is `direct`.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

/// Which servers are trusted.
#[derive(Debug)]
enum Trust {
    Any,
    Authority(RootCertStore),
    /// The chain is checked, and the certificate must be for the host.
    Host(RootCertStore),
}

fn trust(mode: Mode, parameters: &Parameters, home: Option<&Path>) -> Result<Trust, ConfigError> {
    let default = || home.map(|home| home.join(".postgresql/root.crt")).filter(|file| file.exists());
    let roots = || match parameters.root() {
        Some("system") => system_roots().map(Some),
        Some(file) => roots_of(Path::new(file)).map(Some),
        None => default().map(|file| roots_of(&file)).transpose(),
    };
    let needed = |roots: Option<RootCertStore>| {
        roots.ok_or_else(|| {
            ConfigError::new(
                "sslrootcert",
                "is missing and there is no ~/.postgresql/root.crt: name the file with the certificate of the \
                 authority that signed the server's, or `system` for the authorities that this machine trusts",
            )
        })
    };
    match mode {
        Mode::Disable | Mode::Allow | Mode::Prefer => Ok(Trust::Any),
        Mode::Require => Ok(roots()?.map_or(Trust::Any, Trust::Authority)),
        Mode::VerifyCa => Ok(Trust::Authority(needed(roots()?)?)),
        Mode::VerifyFull => Ok(Trust::Host(needed(roots()?)?)),
    }
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(ConfigError::new(
            "sslrootcert",
            "is `system`, and this machine trusts no authorities: install their certificates",
        ));
    }
    Ok(roots)
}

fn roots_of(file: &Path) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, "sslrootcert")? {
        roots
            .add(certificate)
            .map_err(|_| ConfigError::new("sslrootcert", "contains a certificate that cannot be an authority's"))?;
    }
    Ok(roots)
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(parameters: &Parameters) -> Option<Result<ClientCertificate, ConfigError>> {
    let given = |file: &'_ Option<String>| file.clone().filter(|file| !file.is_empty());
    match (given(&parameters.certificate), given(&parameters.key)) {
        (None, None) => None,
        (Some(_), None) => Some(Err(ConfigError::new("sslkey", "is missing: sslcert needs it"))),
        (None, Some(_)) => Some(Err(ConfigError::new("sslcert", "is missing: sslkey needs it"))),
        (Some(certificate), Some(key)) => Some(certificates(Path::new(&certificate), "sslcert").and_then(|chain| {
            let key = PrivateKeyDer::from_pem_file(&key).map_err(|wrong| unreadable("sslkey", &wrong))?;
            Ok((chain, key))
        })),
    }
}

fn certificates(file: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|wrong| unreadable(setting, &wrong))?;
    if certificates.is_empty() {
        return Err(unreadable(setting, &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(setting: &'static str, wrong: &pem::Error) -> ConfigError {
    match wrong {
        pem::Error::Io(wrong) => {
            ConfigError::new(setting, format!("names a file that cannot be read: {}", wrong.kind()))
        }
        pem::Error::NoItemsFound => ConfigError::new(setting, "names a file that contains none in PEM form"),
        _ => ConfigError::new(setting, "names a file that is not in PEM form"),
    }
}

/// Checks a server's certificate without its host name, or only that the server has its key.
///
/// Possession of the key is always verified: channel binding, which ties the password exchange to the certificate,
/// would be worthless if another server could present the same certificate.
#[derive(Debug)]
struct WithoutHostName {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for WithoutHostName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Authority(roots) | Trust::Host(roots) = &self.trust {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A directory with `root.crt`, its key and other files. The root is also at libpq's default place.
    fn files() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let file = move |name: &str| path.join(name);
        let key = KeyPair::generate().unwrap();
        let root = CertificateParams::default().self_signed(&key).unwrap().pem();
        std::fs::create_dir(file(".postgresql")).unwrap();
        for (name, content) in [
            (".postgresql/root.crt", root.as_str()),
            ("root.crt", &root),
            ("root.key", &key.serialize_pem()),
            ("other.key", &KeyPair::generate().unwrap().serialize_pem()),
            ("garbage.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            ("empty.crt", ""),
            ("nonsense.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            std::fs::write(file(name), content).unwrap();
        }
        (directory, file)
    }

    fn build(
        mode: Mode,
        root: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        home: Option<&Path>,
    ) -> Result<(), String> {
        let text = |path: Option<PathBuf>| path.map(|path| path.to_str().unwrap().to_owned());
        let parameters =
            Parameters { mode: None, root: text(root), certificate: text(certificate), key: text(key), passfile: None };
        super::build(mode, &parameters, home).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn verification_needs_a_root_certificate_which_has_a_default() {
        let (_directory, file) = files();
        let none = || file("missing");
        let home = || file("");
        for (mode, root, home, expected) in [
            (
                Mode::VerifyFull,
                None,
                none(),
                Some("setting sslrootcert: is missing and there is no ~/.postgresql/root.crt"),
            ),
            (Mode::VerifyCa, None, none(), Some("setting sslrootcert: is missing")),
            (Mode::Require, None, none(), None),
            (Mode::VerifyFull, None, home(), None),
            (Mode::VerifyFull, Some("root.crt"), none(), None),
            (
                Mode::VerifyCa,
                Some("missing.crt"),
                home(),
                Some("setting sslrootcert: names a file that cannot be read: entity not found"),
            ),
            (
                Mode::VerifyCa,
                Some("garbage.crt"),
                home(),
                Some("setting sslrootcert: names a file that is not in PEM form"),
            ),
            (
                Mode::VerifyCa,
                Some("empty.crt"),
                home(),
                Some("setting sslrootcert: names a file that contains none in PEM form"),
            ),
            (
                Mode::VerifyCa,
                Some("root.key"),
                home(),
                Some("setting sslrootcert: names a file that contains none in PEM form"),
            ),
            (
                Mode::VerifyCa,
                Some("nonsense.crt"),
                home(),
                Some("setting sslrootcert: contains a certificate that cannot be an authority's"),
            ),
            // With a root certificate, `require` verifies; an invalid one is an error.
            (Mode::Require, Some("missing.crt"), none(), Some("setting sslrootcert: names a file that cannot be read")),
            (Mode::Prefer, Some("missing.crt"), none(), None),
            (Mode::Disable, Some("missing.crt"), none(), None),
        ] {
            let built = build(mode, root.map(&file), None, None, Some(&home));
            match expected {
                None => assert_eq!(built, Ok(()), "{mode:?} {root:?}"),
                Some(message) => {
                    assert!(built.clone().unwrap_err().starts_with(message), "{mode:?} {root:?} {built:?}");
                }
            }
        }
    }

    #[test]
    fn a_client_certificate_needs_the_key_that_fits_it() {
        let (_directory, file) = files();
        for (certificate, key, expected) in [
            (Some("root.crt"), Some("root.key"), None),
            (Some("root.crt"), None, Some("setting sslkey: is missing: sslcert needs it")),
            (None, Some("root.key"), Some("setting sslcert: is missing: sslkey needs it")),
            (Some("root.crt"), Some("other.key"), Some("setting sslcert: does not fit the private key in sslkey")),
            (Some("root.crt"), Some("root.crt"), Some("setting sslkey: names a file that contains none in PEM form")),
            (Some("root.crt"), Some("missing.key"), Some("setting sslkey: names a file that cannot be read")),
        ] {
            let built = build(Mode::Require, None, certificate.map(&file), key.map(&file), None);
            match expected {
                None => assert_eq!(built, Ok(())),
                Some(message) => {
                    assert!(built.clone().unwrap_err().starts_with(message), "{certificate:?} {key:?} {built:?}");
                }
            }
        }
    }

    #[test]
    fn debug_output_shows_no_private_key() {
        let (_directory, file) = files();
        let text = format!("host=h sslmode=require sslcert={0}/root.crt sslkey={0}/root.key", file("").display());
        let (_, tls) = crate::tls::parse(&text).unwrap();
        assert_eq!(format!("{tls:?}"), "Require");
    }
}
