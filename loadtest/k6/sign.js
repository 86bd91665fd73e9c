// The acceptance test for those who prefer k6 (1.0 or later): a constant arrival rate at the HTTP entrance.
//
//   k6 run -e URL=https://signer.example -e RATE=200 -e DURATION=300s -e PUBLIC_KEY=$PWD/settlement.pem loadtest/k6/sign.js
//
// Beside it: -e TOKEN_FILE=... for a bearer token, -e CERT=cert.pem -e KEY=key.pem for mutual TLS, -e ALIAS=settlement.
// Without PUBLIC_KEY the service is asked for its key, which proves that it signed with that one. Every signature is
// verified over the content that was sent. The ledger and the audit log are out of reach from here:
// `python -m loadtest` compares with them, k6 cannot.
import http from 'k6/http';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { Rate } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8080';
const ALIAS = __ENV.ALIAS || 'settlement';
const RATE = Number(__ENV.RATE || 200);
const PUBLIC_KEY = __ENV.PUBLIC_KEY ? open(__ENV.PUBLIC_KEY) : null;
const HEADERS = { 'Content-Type': 'application/json' };
if (__ENV.TOKEN_FILE) {
  HEADERS.Authorization = `Bearer ${open(__ENV.TOKEN_FILE).trim()}`;
}
const ALGORITHM = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };

const good = new Rate('signatures_good');

export const options = {
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: __ENV.DURATION || '60s',
      preAllocatedVUs: RATE,
      maxVUs: RATE * 10,
    },
  },
  tlsAuth: __ENV.CERT ? [{ cert: open(__ENV.CERT), key: open(__ENV.KEY) }] : [],
  thresholds: {
    http_req_duration: ['p(99)<100'],
    http_req_failed: ['rate==0'],
    signatures_good: ['rate==1'],
    // k6's word for a generator that fell behind.
    dropped_iterations: ['count==0'],
  },
};

export function setup() {
  const pem = PUBLIC_KEY || http.get(`${URL}/v1/keys/${ALIAS}/public-key`, { headers: HEADERS }).body;
  const found = /-----BEGIN PUBLIC KEY-----([^-]+)-----END PUBLIC KEY-----/.exec(pem);
  if (found === null) {
    exec.test.abort('no public key to verify with');
  }
  return { run: `K6-${Date.now()}`, spki: found[1].replace(/\s/g, '') };
}

function bytes(text) {
  return new Uint8Array(encoding.b64decode(text));
}

async function verifies(answer, id, content, spki) {
  const { transaction_id: named, signature } = answer.json();
  // Not as a JWK: k6 1.8 imports a public RSA key so that it cannot verify.
  const key = await crypto.subtle.importKey('spki', bytes(spki), ALGORITHM, false, ['verify']);
  return named === id && (await crypto.subtle.verify(ALGORITHM, key, bytes(signature.value), content));
}

export default async function sign({ run, spki }) {
  const id = `${run}-${exec.scenario.iterationInTest}`;
  // A payload is signed as it is, so that no canonical form has to be made here.
  const payload = encoding.b64encode(`invoice ${id}: 1250.00 EUR to DE89370400440532013000`);
  const body = JSON.stringify({ key: ALIAS, transaction_id: id, payload });
  const answer = http.post(`${URL}/v1/sign`, body, { headers: HEADERS });
  try {
    good.add(answer.status === 200 && (await verifies(answer, id, bytes(payload), spki)));
  } catch (error) {
    // An exception ends an iteration, and nothing else: k6 would pass without it.
    good.add(false);
    console.error(`${id}: ${error}`);
  }
}
