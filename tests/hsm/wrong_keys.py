"""Puts one key of every wrong kind into a token; a program of its own, since it loads the module without locking."""

import sys
from pathlib import Path

from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

from softhsm.provision import generate_rsa_key, open_session


def main(home: str, token_label: str) -> None:
    """Generate the keys that compliance must refuse."""
    with open_session(Path(home), token_label) as session:
        generate_rsa_key(session, "wrong-bits", 3072)
        generate_rsa_key(session, "wrong-extractable", private_overrides={Attribute.EXTRACTABLE: True})
        generate_rsa_key(session, "wrong-not-sensitive", private_overrides={Attribute.SENSITIVE: False})
        generate_rsa_key(session, "wrong-sign", private_overrides={Attribute.SIGN: False, Attribute.DECRYPT: True})
        session.generate_keypair(
            KeyType.RSA,
            2048,
            label="wrong-exponent",
            store=True,
            public_template={Attribute.PUBLIC_EXPONENT: b"\x03"},
            private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True},
        )
        generate_rsa_key(session, "wrong-two")
        generate_rsa_key(session, "wrong-two")
        curve = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        curve.generate_keypair(label="wrong-ec", store=True)


main(*sys.argv[1:])
