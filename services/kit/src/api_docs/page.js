"use strict";
// Draws the OpenAPI document beside this page. Texts of the document become text nodes, never markup.

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const MOST_SHOWN = 100_000;
let api;

/** An element with attributes, properties that start with "on", and children: nodes, texts, or nothing. */
function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) node[key] = value;
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

/** What a reference stands for; anything else is itself. */
function resolve(value) {
  for (let hops = 0; value?.$ref && hops < 20; hops++) {
    value = value.$ref.slice(2).split("/").reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  }
  return value ?? {};
}

function nameOf(schema) {
  return schema?.$ref?.split("/").pop();
}

/** A schema in few words: `string (date-time), at most 256 characters`. */
function words(schema) {
  const { type, format, items, oneOf, anyOf, enum: values, const: constant, ...rest } = resolve(schema);
  const parts = [];
  if (oneOf ?? anyOf) parts.push((oneOf ?? anyOf).map(words).join(" or "));
  else if (type === "array" || (Array.isArray(type) && type.includes("array"))) parts.push(`array of ${nameOf(items) ?? (items ? words(items) : "anything")}`);
  else if (type) parts.push([type].flat().join(" or ") + (format ? ` (${format})` : ""));
  else parts.push(nameOf(schema) ?? "any JSON");
  if (values) parts.push(`one of ${values.map((value) => JSON.stringify(value)).join(", ")}`);
  if (constant !== undefined) parts.push(`always ${JSON.stringify(constant)}`);
  const bounds = { minLength: "at least % characters", maxLength: "at most % characters", minimum: "at least %", maximum: "at most %",
    minItems: "at least % elements", maxItems: "at most % elements", pattern: "matches %" };
  for (const [key, text] of Object.entries(bounds)) if (rest[key] !== undefined) parts.push(text.replace("%", rest[key]));
  if (rest.default !== undefined) parts.push(`${JSON.stringify(rest.default)} when missing`);
  return parts.join(", ");
}

/** The fields of an object, and of the objects in it. */
function fields(schema, seen = []) {
  const whole = resolve(schema);
  const branches = whole.oneOf ?? whole.anyOf ?? whole.allOf;
  if (seen.includes(whole) || seen.length > 8) return undefined;
  const inside = [...seen, whole];
  if (branches) return branches.map((branch) => fields(branch, inside)).filter(Boolean);
  if (whole.items) return fields(whole.items, inside);
  if (!whole.properties) return undefined;
  const needed = whole.required ?? [];
  return element("ul", { class: "schema" }, Object.entries(whole.properties).map(([name, property]) =>
    element("li", {}, element("code", {}, name), needed.includes(name) ? element("span", { class: "required", title: "always there" }, "*") : "",
      " ", element("span", { class: "muted" }, words(property)), " ", (property.description ?? resolve(property).description) ?? "",
      fields(property, inside) ?? "")));
}

function content(contents) {
  return Object.entries(contents ?? {}).flatMap(([type, { schema }]) =>
    [element("div", {}, element("code", {}, type), " ", element("span", { class: "muted" }, schema ? words(schema) : "")),
      schema ? fields(schema) : undefined].flat());
}

function parameterRows(parameters) {
  return element("table", {}, parameters.map((parameter) => element("tr", {},
    element("td", {}, element("code", {}, parameter.name), parameter.required ? element("span", { class: "required" }, "*") : ""),
    element("td", { class: "muted" }, parameter.in), element("td", {}, parameter.description ?? "",
      element("div", { class: "muted" }, words(parameter.schema))))));
}

function responseRows(responses) {
  return element("table", {}, Object.entries(responses).map(([status, response]) => {
    const whole = resolve(response);
    const headers = Object.entries(whole.headers ?? {}).map(([name, header]) =>
      element("div", {}, element("code", {}, name), " ", header.description ?? ""));
    return element("tr", {}, element("td", {}, element("code", {}, status)),
      element("td", {}, whole.description ?? "", headers, content(whole.content)));
  }));
}

/** A form that sends the request from this page. */
function trial(method, path, parameters, body) {
  const inputs = parameters.map((parameter) => [parameter, element("input", { placeholder: words(parameter.schema) })]);
  const types = Object.keys(body?.content ?? {});
  const kind = element("select", {}, types.map((type) => element("option", {}, type)));
  const example = body?.content?.[types[0]]?.example;
  const text = element("textarea", { placeholder: "the body" });
  text.value = example === undefined ? "" : JSON.stringify(example, null, 2);
  const file = element("input", { type: "file" });
  const result = element("div", {});
  const send = async (event) => {
    event.preventDefault();
    let url = path.slice(1);
    const query = new URLSearchParams();
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (parameter.in === "query" && input.value !== "") query.set(parameter.name, input.value);
    }
    const options = { method: method.toUpperCase() };
    if (types.length) {
      const isForm = kind.value === "multipart/form-data";
      if (isForm) {
        options.body = new FormData();
        if (file.files[0]) options.body.set("image", file.files[0]);
      } else {
        options.body = file.files[0] ?? text.value;
        options.headers = { "Content-Type": kind.value.includes("*") ? file.files[0]?.type || "application/octet-stream" : kind.value };
      }
    }
    result.replaceChildren("…");
    try {
      const start = performance.now();
      const response = await fetch(url + (query.size ? `?${query}` : ""), options);
      const answer = await response.text();
      let shown = answer;
      try { shown = JSON.stringify(JSON.parse(answer), null, 2); } catch { /* It is no JSON. */ }
      const took = Math.round(performance.now() - start);
      result.replaceChildren(element("p", {}, `${response.status} ${response.statusText}, ${took} ms, ${answer.length} characters`),
        element("pre", {}, [...response.headers].map((header) => header.join(": ")).join("\n")),
        element("pre", {}, shown.length > MOST_SHOWN ? `${shown.slice(0, MOST_SHOWN)} …` : shown));
    } catch (error) {
      result.replaceChildren(element("p", {}, `The request failed: ${error.message}`));
    }
  };
  return element("form", { onsubmit: send }, element("strong", {}, "Try it"),
    inputs.map(([parameter, input]) => element("label", {}, element("code", {}, parameter.name), input)),
    types.length ? [element("label", {}, "Content-Type", kind), element("label", {}, "Body", text), element("label", {}, "or a file", file)] : "",
    element("button", {}, "Send"), result);
}

function operation(path, method, item, shared) {
  const parameters = [...shared, ...(item.parameters ?? [])].map(resolve);
  const body = item.requestBody && resolve(item.requestBody);
  const draw = () => element("div", {}, element("p", {}, item.description ?? ""),
    parameters.length ? [element("h4", {}, "Parameters"), parameterRows(parameters)] : "",
    body ? [element("h4", {}, "Body"), element("p", {}, body.description ?? ""), content(body.content)] : "",
    element("h4", {}, "Answers"), responseRows(item.responses ?? {}), trial(method, path, parameters, body));
  const details = element("details", { class: "operation" }, element("summary", {},
    element("span", { class: `method ${method}` }, method), element("span", { class: "path" }, path), item.summary ?? ""));
  // Most are never opened.
  details.addEventListener("toggle", () => details.append(draw()), { once: true });
  return details;
}

async function draw() {
  const main = document.getElementById("api");
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
  } catch (error) {
    main.replaceChildren(element("p", {}, `openapi.json could not be read: ${error.message}`));
    return;
  }
  document.title = api.info.title;
  const groups = new Map((api.tags ?? []).map((tag) => [tag.name, [tag.description ?? "", []]]));
  for (const [path, item] of Object.entries(api.paths ?? {})) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, ["", []]);
      groups.get(tag)[1].push(operation(path, method, item[method], item.parameters ?? []));
    }
  }
  main.replaceChildren(element("h1", {}, api.info.title), element("p", { class: "muted" },
    `Version ${api.info.version}. OpenAPI ${api.openapi}: `, element("a", { href: "openapi.json" }, "openapi.json")),
  element("p", {}, api.info.description ?? ""));
  for (const [name, [description, operations]] of groups) {
    if (operations.length) main.append(element("h2", {}, name), element("p", {}, description), ...operations);
  }
}

draw();
