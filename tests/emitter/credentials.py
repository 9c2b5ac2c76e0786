"""Made-up credentials of the kinds that agents meet, and texts that only look like some. Nothing here was ever valid:
the parts that matter are drawn at random, the same at every run."""

from __future__ import annotations

import base64
import random
import string
from typing import NamedTuple

_chance = random.Random(20261129)


def draw(letters: str, count: int) -> str:
    """Random letters with a figure among the first, as most keys have one."""
    return _chance.choice(letters[:26]) + "7" + "".join(_chance.choices(letters, k=count - 2))


ALNUM = string.ascii_letters + string.digits
HEX = "abcdef0123456789"


def alnum(count: int) -> str:
    return draw(ALNUM, count)


def word(count: int) -> str:
    return draw(ALNUM + "_-", count - 1) + "x"


def upper(count: int) -> str:
    return draw(string.ascii_uppercase + string.digits, count)


def hexed(count: int) -> str:
    return "".join(_chance.choices(HEX, k=count))


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def b64url(text: str | bytes) -> str:
    return base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode().rstrip("=")


def jws(payload: str, header: str = '{"alg":"HS256","typ":"JWT"}', signature: int = 32) -> str:
    return f"{b64url(header)}.{b64url(payload)}.{b64url(_chance.randbytes(signature))}"


def jwe(key: int, text: int) -> str:
    parts = (_chance.randbytes(size) for size in (key, 12, text, 16))
    return ".".join([b64url('{"alg":"dir","enc":"A256GCM"}'), *map(b64url, parts)])


def der(head: str, size: int = 900) -> str:
    """What a private key file has between its lines: `head` is how the DER of its kind begins."""
    body = head + b64(_chance.randbytes(size))
    return "\n".join(body[at : at + 64] for at in range(0, len(body), 64))


class Item(NamedTuple):
    """A text, and what of it must not be stored."""

    text: str
    secret: str


def _alone(*secrets: str) -> list[Item]:
    frames = ("{}", "use {} from now on", "the key is '{}'.", "x={}", "({})", "got {},\nthen", "old_{}", "see: {}")
    return [Item(frames[at % len(frames)].format(secret), secret) for at, secret in enumerate(secrets)]


def by_shape() -> list[Item]:
    """Told by their own shape."""
    return _alone(
        "sk-" + alnum(48),
        "sk-proj-" + word(100),
        "sk-svcacct-" + word(80),
        "sk-admin-" + word(60),
        "sk-ant-api03-" + word(90),
        "sk-ant-oat01-" + word(90),
        "sk-or-v1-" + hexed(64),
        "sk-" + hexed(31) + "7",
        "sk_live_" + alnum(24),
        "rk_live_" + alnum(24),
        "sk_test_" + alnum(40),
        "whsec_" + alnum(32),
        "ghp_" + alnum(36),
        "gho_" + alnum(36),
        "ghu_" + alnum(36),
        "ghs_" + alnum(36),
        "ghr_" + alnum(70),
        "github_pat_" + alnum(22) + "_" + alnum(59),
        "glpat-" + word(20),
        "glrt-" + word(20),
        "gldt-" + word(20),
        "glptt-" + hexed(40),
        "AKIA" + upper(16),
        "ASIA" + upper(16),
        "AIza" + word(35),
        "ya29." + word(120),
        "GOCSPX-" + word(28),
        "1//0" + word(60),
        "xoxb-" + "7" * 12 + "-" + "3" * 12 + "-" + alnum(24),
        "xoxp-" + "7" * 12 + "-" + hexed(32),
        "xapp-1-A" + upper(10) + "-" + "5" * 13 + "-" + hexed(64),
        "xoxe.xoxp-1-" + alnum(120),
        "hf_" + alnum(34),
        "npm_" + alnum(36),
        "pypi-AgEIcHlwaS5vcmc" + word(120),
        "dckr_pat_" + word(27),
        "r8_" + alnum(37),
        "gsk_" + alnum(52),
        "xai-" + alnum(80),
        "pplx-" + alnum(48),
        "lsv2_pt_" + hexed(32) + "_" + hexed(10),
        "lsv2_sk_" + hexed(32) + "_" + hexed(10),
        "tvly-" + alnum(32),
        "tvly-dev-" + alnum(32),
        "pcsk_" + alnum(6) + "_" + alnum(60),
        "dop_v1_" + hexed(64),
        "shpat_" + hexed(32),
        "shpss_" + hexed(32),
        "lin_api_" + alnum(40),
        "ntn_" + alnum(46),
        "secret_" + alnum(43),
        "figd_" + word(40),
        "PMAK-" + hexed(24) + "-" + hexed(34),
        "dapi" + hexed(32),
        "hvs." + word(90),
        "hvb." + word(120),
        "glsa_" + alnum(32) + "_" + hexed(8),
        "ATATT3x" + word(180),
        "ATBB" + alnum(32),
        "sbp_" + hexed(40),
        "SG." + word(22) + "." + word(43),
        "key-" + hexed(32),
        "SK" + hexed(32),
        "nvapi-" + word(64),
        "sntrys_" + alnum(120),
        "tskey-auth-" + alnum(12) + "-" + alnum(32),
        "sq0csp-" + word(43),
        "fc-" + hexed(31) + "7",
        "NRAK-" + upper(27),
        "dp.pt." + alnum(43),
        "jina_" + alnum(60),
        "re_" + alnum(8) + "_" + alnum(24),
        "pul-" + hexed(40),
        "e2b_" + hexed(39) + "7",
        "AGE-SECRET-KEY-1" + upper(58),
        "7" * 10 + ":AA" + word(33),
        jws('{"sub":"ada"}'),
        jws("{}"),
        jws('{"sub":"ada","scope":"' + "x" * 3000 + '"}'),
        jws('{"a":1}', signature=256),
        jws('{"sub":"ada"}', '{"typ":"JWT","alg":"RS256","kid":"1"}'),
        jwe(0, 40),
        jwe(256, 900),
        jwe(40, 2),
    )


def by_form() -> list[Item]:
    """Told by what stands before them."""
    login, plain, forty = b64("ada:hunter2"), "hunter2", hexed(40)
    signature = b64(_chance.randbytes(32))
    frames = [
        ("Cookie: sid={}; theme=dark", alnum(20)),
        ("Set-Cookie: session={}; Path=/; HttpOnly", alnum(32)),
        ("curl -b x -H 'Cookie: id={}' https://example.com", hexed(20)),
        ("X-API-Key: {}", hexed(32)),
        ("x-api-key:{}", alnum(20)),
        ("{{'Authorization': 'Basic {}'}}", login),
        ("AUTHORIZATION: BEARER {}", alnum(30)),
        ("Authorization: Bearer  {}", alnum(30)),
        ("Authorization:\tBearer\t{}", alnum(30)),
        ("Authorization: token {}", forty),
        ("Authorization: Token token={}", hexed(32)),
        ('"Authorization": "ApiKey {}"', alnum(40)),
        ("Proxy-Authorization: Basic {}", login),
        ("authorization: Basic {}", b64("a:b")),
        ("Authorization: {}", alnum(40)),
        ("X-Vault-Token: {}", "s." + alnum(24)),
        ("passwd: {}", "Tr0ub4dor&3"),
        ("PRIVATE-TOKEN: {}", alnum(20)),
        ("X-Auth-Token: {}", hexed(32)),
        ("Authorization: AWS4-HMAC-SHA256 Credential=x/y, Signature={}", hexed(64)),
        ("Ocp-Apim-Subscription-Key: {}", hexed(32)),
        ("curl -u ada:{} https://example.com", plain),
        ("curl -s --user ada:{} https://example.com", "p@ss/w0rd"),
        ("wget --password={} x", plain),
        ("login --password {} --verbose", plain),
        ("deploy --token {}", alnum(24)),
        ("docker login -p x --password '{}'", "a b1c"),
        ("GET /v1/items?api_key={}&page=2", alnum(20)),
        ("https://example.com/?access_token={}", alnum(30)),
        ("https://example.com/login?user=ada&password={}", plain),
        ("https://x.example/cb#access_token={}&token_type=b", alnum(9)),
        ("https://acct.blob.core.windows.net/c?sv=2024&sig={}", "a7%2F" + alnum(40) + "%3D"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature={}", hexed(64)),
        ("https://b.s3.amazonaws.com/k?X-Amz-Security-Token={}&x=1", alnum(200)),
        ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=x", b64(_chance.randbytes(64))),
        ("Endpoint=sb://a.example/;SharedAccessKeyName=root;SharedAccessKey={}", signature),
        ("Server=db;Database=x;User Id=sa;Password={};Encrypt=true", "S3cr3t!"),
        ("Data Source=x;Uid=a;Pwd={};", plain),
        ("aws_secret_access_key = {}", alnum(40)),
        ("AWS_SECRET_ACCESS_KEY={}", alnum(40)),
        ("export DB_PASSWORD={}", plain),
        ("DB_PASSWORD={}", "swordfish"),
        ('DB_PASS="{}"', plain),
        ("OPENAI_API_KEY={}", word(40)),
        ("password: {}", plain),
        ("password: {}", "P@ssw0rd"),
        ("user: ada\npassword: {}\nhost: db", "swordfish"),
        ("password={}", plain),
        ("host=db user=ada password={} dbname=x", "p4ss"),
        ("spring.datasource.password={}", plain),
        ('{{"user": "ada", "password": "{}"}}', plain),
        ('{{"user": "ada", "password":"{}"}}', "swordfish"),
        ("{{'api_key': '{}'}}", alnum(12)),
        ('{{\\"client_secret\\": \\"{}\\"}}', alnum(12)),
        ('api_key = "{}"', alnum(12)),
        ("client_secret: '{}'", alnum(20)),
        ("$config['db_password'] => '{}'", plain),
        (':secret => "{}"', alnum(10)),
        ("<password>{}</password>", plain),
        ("<ApiKey>{}</ApiKey>", hexed(16)),
        ("refresh_token={}", alnum(20)),
        ("postgres://ada:{}@db:5432/x", plain),
        ("postgres://ada:{}@db/x", "p@ss"),
        ("mysql://ada:{}@db/x", "pa/ss1"),
        ("redis://:{}@cache:6379/0", plain),
        ("mongodb+srv://ada:{}@c0.example.net/x", "p%40ss"),
        ("amqp://ada:{}@mq", "a:b"),
        ("git clone https://{}@github.com/a/b", forty),
        ("https://x-access-token:{}@github.com/a/b.git", alnum(40)),
        ("https://{}@o1.ingest.example.io/4507", hexed(31) + "7"),
        ("ada:{}@tcp(db:3306)/x", plain),
        ("https://hooks.slack.com/services/{}", "T01ABCDEF/B02ABCDEF/" + alnum(24)),
        ("https://discord.com/api/webhooks/123456789012345678/{}", word(68)),
        ("https://api.telegram.org/bot{}/getMe", "7" * 9 + ":" + word(35)),
    ]
    return [Item(frame.format(secret), secret) for frame, secret in frames]


def by_file() -> list[Item]:
    """Private keys, whole and in parts."""
    rsa, pkcs8, ec = der("MIIEpAIBAAKCAQEA"), der("MIIEvQIBADANBgkq"), der("MHcCAQEEI", 100)
    ssh = der("b3BlbnNzaC1rZXktdjEA", 300)
    return [
        Item(f"-----BEGIN RSA PRIVATE KEY-----\n{rsa}\n-----END RSA PRIVATE KEY-----\n", rsa[100:160]),
        Item(f"key:\n-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\nend", pkcs8[-40:]),
        Item(
            '"' + f"-----BEGIN EC PRIVATE KEY-----\n{ec}\n-----END EC PRIVATE KEY-----\n".replace("\n", "\\n") + '"',
            ec[70:100],
        ),
        Item(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{ssh}\n-----END OPENSSH PRIVATE KEY-----", ssh[-30:]),
        Item(f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{der('MIIFLTBXBgkq')}", "MIIFLTBXBgkq"),
        Item(f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\n{rsa}", rsa[200:250]),
        Item("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + der("lQOYBF"), "lQOYBF"),
        Item(rsa, rsa[130:190]),
        Item(f"body: {pkcs8}", pkcs8[70:120]),
        Item(ssh.replace("\n", "\\n"), ssh[70:100]),
        Item(ec, ec[70:120]),
    ]


def by_end() -> list[Item]:
    """Told only by what comes after them."""
    rsa = der("MIIEpAIBAAKCAQEA")
    return [Item(f"…{rsa[200:]}\n-----END RSA PRIVATE KEY-----", rsa[-30:])]


def untold() -> list[Item]:
    """What nobody can tell by its shape."""
    forty = alnum(40)
    return [
        Item(f"it is {forty}", forty),
        Item("the code is 481516", "481516"),
        Item("card 4111 1111 1111 1111", "4111 1111 1111 1111"),
        Item("his word for it is swordfish", "swordfish"),
    ]


def corpus() -> list[Item]:
    return [*by_shape(), *by_form(), *by_file(), *by_end(), *untold()]


LOOKALIKES = [
    "adapter --opentsdb-url=http://localhost:8081/",
    "for clients without cookies: `?ticket=`. Both work",
    "sk_sort_key_user_2026_01_profile",
    "pk_user_account_2026_11_29_history",
    "rk-reducer-kernel-2026-11-29-build-7",
    "the header is -----BEGIN PRIVATE KEY----- and then base64 lines follow, up to the end marker",
    "-----BEGIN PRIVATE KEY-----",
    "a file that begins with -----BEGIN RSA PRIVATE KEY----- is a secret; ends with -----END RSA PRIVATE KEY-----.",
    "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "550e8400-e29b-41d4-a716-446655440000",
    "image: redis@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "@scope/some-package-name@1.2.3",
    "npm install @ai-sdk/provider-utils@2.1.0",
    "ids: call_8Kx0bP2vN1qT5mZ7rW3yL9aD, toolu_01A09q90qw90lq917835lq9, chatcmpl-AbC123dEf456",
    "msg_01XFDUDYJgAACzvnptvVoYEL",
    "def login(user: str, password: str) -> Token:\n    return Token(user, password=password)",
    "token = get_token(request)\nif token == expected_token:\n    password = os.environ['DB_PASSWORD']",
    "password = input('Password: ')",
    "api_key=os.environ.get('OPENAI_API_KEY')",
    "const token = await getToken({ secret: process.env.SECRET })",
    "headers: { Authorization: `Bearer ${token}` }",
    "curl -H 'Authorization: Bearer $TOKEN' https://api.example.com",
    "Authorization: Bearer <token>",
    "Authorization: Basic authentication is not supported",
    "The password must have at least 8 characters, one of them a digit.",
    "Password: at least 12 characters",
    "Your password: choose a long one",
    "The secret of the token is a cookie: key",
    "Forgot password? Reset it at https://example.com/reset?user=ada",
    "set DB_PASSWORD to the value from the vault",
    "export TOKEN=$(cat /run/token)",
    "API_KEY=${API_KEY}",
    "DB_PASSWORD=<password>",
    "password: ********",
    "password: [redacted]",
    "token: str",
    "secret: Optional[str] = None",
    "SECRET_NAME=app-config-2026",
    "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/token",
    "PWD=/home/ada",
    "OLDPWD=/home/ada/src",
    "max_tokens=4096",
    "token_count: 1234",
    "tokens: 17",
    "input_tokens=12, output_tokens=345",
    "eos_token='</s>'",
    "next_token=eyJhIjoxfQ",
    "pageToken=CAUQAA",
    "?page_token=abc123&limit=5",
    "cookie_policy: strict2",
    "token_type=bearer",
    "api_key_id=ak_123456",
    "see https://host/a@b and http://host:80/x",
    "https://medium.com/@ada/post-1",
    "https://github.com/a/b@v1.2.3",
    "git@github.com:a/b.git",
    "ssh://git@github.com/a/b.git",
    "http://localhost:8080/users/@me",
    "ada@example.com: hello",
    "mailto:ada@example.com",
    "docker run -u 1000:1000 image",
    "chown -R ada:staff dir",
    "ratio 16:9 at 12:30",
    "task-analysis-of-the-quarter-2026-11",
    "risk-adjusted-return-2026-q4-final",
    "pass: 12, fail: 3",
    "first pass: 3.2s",
    "author: Ada Lovelace",
    "key: value",
    "primary key: id",
    "sort_key=user_2026",
    "signature: def f(a, b)",
    "session: the third",
    "Bearer responsibilities of everybody",
    "basic training2 course",
    "The cookie: a history",
    "Cookie policy: we use cookies",
    "eyes on the prize.eyJ is a prefix",
    "AKIA is a prefix of AWS keys",
    "ghp_ is a prefix, as in ghp_xxx",
    "sk-... goes here",
    "sk-learn-is-a-very-long-name-indeed",
    "key-value-store-of-2026",
    "pypi-index-server",
    "hf_hub_download(repo)",
    "npm_config_registry=https://registry.npmjs.org",
    "SG.UN is Singapore",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYD\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx5 ada@host",
    "integrity sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf",
    "projects/x/secrets/db/versions/3",
    "secretsManagerArn: arn:aws:secretsmanager:eu:1:secret:x",
    "v1.2.3-rc.4+build.567",
    "10.0.0.1:6379",
    "2026-11-29T07:30:00Z",
]
"""Texts that hold no credential."""
