//! Client certificates: who has none that the server knows is told so.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::common::{Scratch, bare, model};
use crate::network::{Listening, RING};

#[test]
fn a_server_may_ask_for_certificates_of_its_clients() {
    let dir = Scratch::new("mutual");
    let at = |name: &str| dir.path(name);
    let put = |name: &str, text: String| {
        fs::write(at(name), text).unwrap();
        at(name)
    };
    let issuer = || {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let of = |issuer: &CertifiedIssuer<'_, KeyPair>, name: &str| {
        let (params, key) =
            (CertificateParams::new(vec!["127.0.0.1".into()]).unwrap(), KeyPair::generate().unwrap());
        let made = params.signed_by(&key, issuer).unwrap();
        [put(name, made.pem()), put(&format!("{name}.key"), key.serialize_pem())]
    };
    let (ours, others) = (issuer(), issuer());
    let ca = put("ca.pem", ours.pem());
    let ([cert, key], [mine, secret], [strange, its]) =
        (of(&ours, "server.pem"), of(&ours, "client.pem"), of(&others, "strange.pem"));
    let (tiny, data, log) = (model(), at("data"), at("log"));
    let args = ["serve", "--model", &tiny, "--data", &data, "--listen", "127.0.0.1:0", "--tls-cert", &cert];
    let more = ["--tls-key", &key, "--client-ca", &ca];
    let server = Listening::start(&[&args[..], &more, &RING].concat(), Path::new(&log));
    let token = at("data/token");
    let plan = |folder: &str, own: &[&str]| {
        let folder = at(folder);
        let args =
            ["plan", "--client", &folder, "--server", &server.address, "--token-file", &token, "--ca", &ca];
        bare(&[&args[..], own].concat()).output().unwrap()
    };
    assert!(plan("known", &["--client-cert", &mine, "--client-key", &secret]).status.success());
    for own in [&[][..], &["--client-cert", &strange, "--client-key", &its]] {
        let refused = plan("unknown", own);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains("--client-cert"), "{own:?}: {said}");
        assert!(!Path::new(&at("unknown")).exists());
    }
    // Half of a pair, and options of a server where none is named.
    assert_eq!(plan("half", &["--client-cert", &mine]).status.code(), Some(2));
    let lost = bare(&["plan", "--model", &tiny, "--length", "8", "--ca", &ca]).output().unwrap();
    assert!(String::from_utf8_lossy(&lost.stderr).contains("--server") && lost.status.code() == Some(2));
}
