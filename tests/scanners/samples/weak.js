// Each weak line follows a comment that names what finds it; every other line must stay without findings.
const child = require("child_process");
const crypto = require("crypto");
const fs = require("fs");
const https = require("https");
const jwt = require("jsonwebtoken");
const path = require("path");

function code(text) {
  // finds: javascript.eval
  eval(text);
  // finds: javascript.eval
  new Function("a", text);
  eval("1 + 1");
}

function commands(name) {
  // finds: javascript.child-process-exec
  child.exec("ls " + name);
  // finds: javascript.child-process-exec
  child.execSync(`ls ${name}`);
  child.exec("make all");
  child.execFile("ls", [name]);
  /x/.exec(name);
}

function html(element, text) {
  // finds: javascript.inner-html
  element.innerHTML = "<p>" + text;
  // finds: javascript.inner-html
  document.write(text);
  element.textContent = text;
  element.innerHTML = "";
  element.innerHTML = DOMPurify.sanitize(text);
}

function sql(db, name) {
  // finds: javascript.sql-injection
  db.query(`SELECT * FROM users WHERE name = '${name}'`);
  // finds: javascript.sql-injection
  db.query("SELECT * FROM users WHERE name = " + name);
  db.query("SELECT * FROM users WHERE name = ?", [name]);
  db.get(`users/${name}`);
}

function tls(url) {
  // finds: javascript.tls-unverified
  https.get(url, { rejectUnauthorized: false });
  // finds: javascript.tls-unverified
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
  https.get(url, { ca: fs.readFileSync("ca.pem") });
}

function tokens(token, key) {
  // finds: javascript.jwt-unverified
  jwt.verify(token, key, { algorithms: ["none"] });
  jwt.verify(token, key, { algorithms: ["HS256"] });
  // finds: javascript.weak-hash
  crypto.createHash("md5").update(token);
  crypto.createHash("sha256").update(token);
  // finds: javascript.insecure-random
  const sessionToken = Math.random().toString(36);
  const dice = Math.floor(Math.random() * 6);
}

function handle(req, res) {
  // finds: javascript.path-traversal
  fs.readFileSync("/srv/" + req.query.file);
  // finds: javascript.path-traversal
  res.sendFile(req.params.file);
  fs.readFileSync("/srv/" + path.basename(req.query.file));
  // finds: javascript.cors-any-origin
  res.setHeader("Access-Control-Allow-Origin", "*");
  res.setHeader("Access-Control-Allow-Origin", "https://shop.example");
  // finds: javascript.open-redirect
  res.redirect(req.query.next);
  res.redirect("/basket");
}

// finds: javascript.hard-coded-secret
const password = "correct-horse-battery";
// finds: javascript.hard-coded-secret
connect({ user: "shop", apiKey: "f3b1c9d0e2a4" });
const apiKey = process.env.API_KEY;
const secret = "";
