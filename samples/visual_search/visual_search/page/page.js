// The page of the visual search: plain JavaScript without external resources.
const $ = (id) => document.getElementById(id);
const PAGE_SIZE = 60;
let shown = 0;          // photos of the index that the page shows; -1 while it shows a result
let known = -1;         // photos in the index at the last poll
let question = 0;       // number of the latest search, to drop late answers to earlier ones

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The service of this page does not answer. Is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = typeof body.detail === "string" ? body.detail : `status ${response.status}`;
    throw new Error(detail);
  }
  return body;
}

function tell(id, text) {
  $(id).textContent = text ?? "";
  $(id).hidden = !text;
}

function address(kind, path) {
  return `${kind}/${path.split("/").map(encodeURIComponent).join("/")}`;
}

function tile(path, similarity) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "photo";
  button.title = path;
  button.dataset.path = path;
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = path;
  image.src = address("thumbnails", path);
  const name = document.createElement("span");
  name.textContent = path.split("/").pop();
  button.append(image, name);
  if (similarity !== undefined) {
    const meter = document.createElement("meter");
    meter.value = Math.max(0, similarity);
    const number = document.createElement("span");
    number.className = "similarity";
    number.textContent = `similarity ${similarity.toFixed(3)}`;
    button.append(meter, number);
  }
  button.addEventListener("click", () => searchByPath(path));
  return button;
}

function showResult(source, name, neighbours) {
  shown = -1;
  $("asked").src = source;
  $("asked-name").textContent = name;
  $("query").hidden = false;
  $("more").hidden = true;
  $("heading").textContent = "Its nearest neighbours";
  $("photos").replaceChildren(...neighbours.map((each) => tile(each.path, each.similarity)));
}

async function search(source, name, find) {
  const mine = ++question;
  tell("error", null);
  $("drop").ariaBusy = "true";
  try {
    const neighbours = await find();
    if (mine === question) showResult(source, name, neighbours);
  } catch (error) {
    if (mine === question) tell("error", `${name}: ${error.message}`);
  } finally {
    if (mine === question) $("drop").ariaBusy = "false";
  }
}

function searchByPath(path) {
  return search(address("photos", path), path, () =>
    ask(`api/neighbours?path=${encodeURIComponent(path)}`));
}

function searchByFile(file) {
  return search(URL.createObjectURL(file), file.name, async () =>
    (await ask("api/search", { method: "POST", body: file })).neighbours);
}

async function showPhotos(fromStart) {
  if (fromStart) {
    shown = 0;
    question++;
    $("query").hidden = true;
    $("heading").textContent = "Photos";
  }
  const paths = await ask(`api/photos?offset=${shown}&limit=${PAGE_SIZE}`);
  const tiles = paths.map((path) => tile(path));
  if (shown === 0) $("photos").replaceChildren(...tiles);
  else $("photos").append(...tiles);
  shown += paths.length;
  $("more").hidden = paths.length < PAGE_SIZE;
}

function describe(status) {
  const { progress, index } = status;
  const parts = [];
  if (index) parts.push(`${index.photos} photos`);
  if (progress.running && progress.found) {
    parts.push(`indexing: ${progress.done} of ${progress.found}`);
  }
  if (progress.failed) parts.push(`${progress.failed} failed`);
  if (index?.stand_in) parts.push("stand-in: random weights, so neighbours are meaningless");
  return parts.join(" · ") || "No photos are indexed yet";
}

async function look() {
  let pause = 1000;
  try {
    const status = await ask("api/status");
    tell("state", describe(status));
    tell("notice", status.notice ?? status.progress.trouble);
    const { running, done, found } = status.progress;
    $("progress").hidden = !running;
    $("progress").value = found ? done / found : 0;
    const count = status.index?.photos ?? 0;
    const roomLeft = shown >= 0 && shown < PAGE_SIZE;
    if (count !== known && count > 0 && roomLeft) await showPhotos(true);
    known = count;
    if (!running) pause = 3000;
  } catch (error) {
    tell("notice", error.message);
  }
  setTimeout(look, pause);
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) searchByFile(file);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) searchByFile(file);
  else tell("error", "That was not a file: drop a photo from a folder.");
});
$("back").addEventListener("click", () => showPhotos(true));
$("more").addEventListener("click", () => showPhotos(false));
look();
