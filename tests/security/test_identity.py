import hashlib

from hypothesis import given
from hypothesis import strategies as st

from holdfast.security.identity import PREFIX, matches, new_token


def test_a_token_matches_its_own_hash_and_no_other():
    (secret, sha256), (other, _) = new_token(), new_token()
    assert matches(secret, sha256)
    assert not matches(other, sha256)
    assert not matches("", sha256)


def test_the_hash_that_is_kept_does_not_hold_the_secret():
    secret, sha256 = new_token()
    assert secret.startswith(PREFIX)
    assert len(secret) >= len(PREFIX) + 43  # 32 bytes in base64
    assert sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in sha256


@given(st.text(), st.text())
def test_any_two_texts_match_only_when_they_are_the_same(one, two):
    secret, other = one.encode(errors="replace").decode(), two.encode(errors="replace").decode()
    assert matches(secret, hashlib.sha256(other.encode()).hexdigest()) == (secret == other)
