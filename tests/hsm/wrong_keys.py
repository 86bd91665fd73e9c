"""Puts one key of every wrong kind into a token; a program of its own, since it loads the module without locking."""

import sys
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters


def main(module: str, token_label: str, pin_file: str) -> None:
    """Generate the keys that compliance must refuse."""
    token = pkcs11.lib(module).get_token(token_label=token_label)
    with token.open(rw=True, user_pin=Path(pin_file).read_text(encoding="utf-8").strip()) as session:

        def rsa(label: str, bits: int = 2048, changes: dict[Attribute, object] | None = None) -> None:
            template = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True}
            session.generate_keypair(
                KeyType.RSA, bits, label=label, store=True, private_template={**template, **(changes or {})}
            )

        rsa("wrong-bits", 3072)
        rsa("wrong-extractable", changes={Attribute.EXTRACTABLE: True})
        rsa("wrong-not-sensitive", changes={Attribute.SENSITIVE: False})
        rsa("wrong-sign", changes={Attribute.SIGN: False, Attribute.DECRYPT: True})
        rsa("wrong-two")
        rsa("wrong-two")
        curve = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        curve.generate_keypair(label="wrong-ec", store=True)


main(*sys.argv[1:])
