"use strict";

const euros = (cents) => (cents / 100).toFixed(2) + " €";
const byId = (id) => document.getElementById(id);
let basket = null;
let quantities = {};

async function call(method, path, body) {
  const answer = await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

async function showProducts() {
  const products = await call("GET", "/api/products");
  // A weakness on purpose: names and descriptions become HTML unescaped.
  byId("products").innerHTML = products
    .map(
      (product) =>
        `<tr><td>${product.name}</td><td>${product.description}</td>` +
        `<td class="price">${euros(product.price_cents)}</td><td><button data-id="${product.id}">+</button></td></tr>`,
    )
    .join("");
}

function showBasket(price) {
  const lines = price.lines.map((line) => `${line.quantity} × ${line.name}`).join(", ");
  byId("basket").textContent = lines ? `${lines}: ${euros(price.total_cents)} with shipping` : "empty";
}

async function add(product) {
  basket = basket || (await call("POST", "/api/baskets")).basket;
  quantities[product] = (quantities[product] || 0) + 1;
  showBasket(await call("PUT", `/api/baskets/${basket}/items/${product}`, { quantity: quantities[product] }));
}

async function checkOut() {
  if (!basket) return;
  const order = await call("POST", `/api/baskets/${basket}/checkout`, {});
  byId("order").textContent = `Order ${order.token}: ${euros(order.price.total_cents)}`;
  basket = null;
  quantities = {};
  showBasket({ lines: [] });
}

async function start() {
  byId("products").addEventListener("click", (event) => event.target.dataset.id && add(event.target.dataset.id));
  byId("checkout").addEventListener("click", checkOut);
  await showProducts();
  byId("health").textContent = `version ${(await call("GET", "/health")).version}`;
}

start();
