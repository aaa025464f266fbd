// POST /predict with a photo; 429 is an answer as well:
// `k6 run -e FEATURE=... -e RESULTS=... -e PHOTO=... tests/load/k6/predict.js`
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const photo = open(__ENV.PHOTO, 'b');
const refused = new Counter('refused');
http.setResponseCallback(http.expectedStatuses(200, 429));
export const options = {
  scenarios: { closed: { executor: 'constant-vus', vus: Number(__ENV.CALLERS || 4), duration: __ENV.DURATION || '10s' } },
  thresholds: { checks: ['rate==1'] },
};

export function setup() {
  return `${Date.now()}`;
}

export default function (run) {
  const body = { image: http.file(photo, 'photo.jpg', 'image/jpeg'), user_id: `load-${run}-${__VU}`, ...(__ENV.MODEL ? { model: __ENV.MODEL } : {}) };
  const answer = http.post(`${__ENV.FEATURE}/predict`, body);
  if (answer.status === 429) refused.add(1);
  check(answer, { 'a prediction, or: try again later': (r) => r.status === 429 || (r.status === 200 && Array.isArray(r.json('detections'))) });
}

// What was stored goes again.
export function teardown(run) {
  for (let user = 1; user <= Number(__ENV.CALLERS || 4); user++) {
    const erased = http.del(`${__ENV.RESULTS}/predictions/user/load-${run}-${user}`, null, {
      responseCallback: http.expectedStatuses(200, 503),
    });
    check(erased, { erased: (r) => r.status === 200 || r.status === 503 });
  }
}
