// POST /preprocess with a photo: `k6 run -e FEATURE=http://localhost:5001 -e PHOTO=... tests/load/k6/preprocess.js`
import http from 'k6/http';
import { check } from 'k6';
import encoding from 'k6/encoding';

const body = JSON.stringify({ image: encoding.b64encode(open(__ENV.PHOTO, 'b')) });
export const options = {
  scenarios: { closed: { executor: 'constant-vus', vus: Number(__ENV.CALLERS || 8), duration: __ENV.DURATION || '10s' } },
  thresholds: { checks: ['rate==1'] },
};

export default function () {
  const answer = http.post(`${__ENV.FEATURE}/preprocess`, body, { headers: { 'Content-Type': 'application/json' } });
  check(answer, { 'features': (r) => r.status === 200 && r.json('features.mean_brightness') > 0 });
}
