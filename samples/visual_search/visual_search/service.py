"""The web service: a page, its search, and indexing in the background."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image, ImageOps
from starlette.middleware.trustedhost import TrustedHostMiddleware

import featurewire
from visual_search.index import IndexProblem, Match, PhotoIndex, SpaceTable
from visual_search.indexing import Progress, Space, index_photos, space_of

__all__ = ["Settings", "connect", "create_app"]

PAGE = Path(__file__).parent / "page"
MAX_UPLOAD = 32 << 20
"""Maximum size of a dropped photo in bytes, the same as the default of exported versions."""
THUMBNAIL = 256
"""Longer side of a thumbnail, in pixels."""
RETRY_SECONDS = 3.0
STATUS_TIMEOUT = 2.0
HEADERS = {
    # Load nothing from other sites, and never run a photo as a script.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
STATUS_OF = {
    featurewire.ImageError: 422,
    featurewire.VectorSpaceError: 409,
    featurewire.OverloadedError: 503,
    featurewire.ServerUnavailableError: 503,
    featurewire.ModelNotFoundError: 503,
    featurewire.DeadlineExceededError: 504,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    photos: Path
    index: Path
    server: str
    model: str
    label: str | None = None
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    """Host names of the page. Others are refused, so that other sites cannot read it."""


def connect(settings: Settings) -> featurewire.AsyncClient:
    """A client for indexing, whose streams stay on one version."""
    return featurewire.AsyncClient(
        settings.server,
        model=settings.model,
        label=settings.label,
        timeout=30.0,
        stream=featurewire.StreamConfig(pin_version=True, readers=4, patience=30.0),
    )


def other_space(settings: Settings, table: SpaceTable, space: Space) -> str:
    """What to do when the server's space is not the index's."""
    if table.vector_space in space.bridged:
        what = "searches use that version's bridge, and new photos wait"
    else:
        what = "they cannot be compared"
    return (
        f"The server answers with version {space.version}, whose vector space is "
        f"{space.vector_space}. The index has vectors of {table.vector_space}: {what}. "
        "Embed the photos into a new table, then switch to it: "
        f"python -m visual_search index --photos {settings.photos} --index {settings.index} "
        f"--server {settings.server} && python -m visual_search switch --index {settings.index}"
    )


class Search:
    """State shared by all requests."""

    def __init__(self, settings: Settings, client: featurewire.AsyncClient) -> None:
        self.settings = settings
        self.client = client
        self.index = PhotoIndex(settings.index)
        self.progress = Progress()

    async def keep_indexing(self) -> None:
        """Index the folder once, and retry while the server is down or in another space."""
        while True:
            try:
                await self._check_space()
                await index_photos(self.settings.photos, self.index, self.client, self.progress)
                return
            except (featurewire.FeaturewireError, IndexProblem, OSError) as error:
                self.progress.trouble = str(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _check_space(self) -> None:
        table = self.index.current()
        space = await space_of(self.client)
        if table is not None and space.vector_space != table.vector_space:
            raise IndexProblem(other_space(self.settings, table, space))

    def table(self) -> SpaceTable:
        table = self.index.current()
        if table is None:
            raise HTTPException(503, self.progress.trouble or "no photos are indexed yet: wait")
        return table

    async def neighbours_of_image(self, image: bytes, count: int) -> dict[str, Any]:
        table = self.table()
        client = self.client.with_options(vector_space=table.vector_space)
        try:
            embedding = await client.embed(image)
        except featurewire.VectorSpaceError as error:
            space = await space_of(self.client)
            raise HTTPException(409, other_space(self.settings, table, space)) from error
        matches = await asyncio.to_thread(table.neighbours, embedding.vector, count)
        return {"version": embedding.version, "neighbours": [asdict(each) for each in matches]}

    async def status(self) -> dict[str, Any]:
        table = self.index.current()
        answer: dict[str, Any] = {
            "progress": asdict(self.progress),
            "index": None,
            "server": None,
            "notice": None,
        }
        if table is not None:
            answer["index"] = {
                "vector_space": table.vector_space,
                "photos": await asyncio.to_thread(table.count),
                "stand_in": table.stand_in,
            }
        try:
            space = await space_of(self.client, timeout=STATUS_TIMEOUT)
        except (featurewire.FeaturewireError, IndexProblem) as error:
            answer["notice"] = f"The embedding server does not answer: {error}"
            return answer
        answer["server"] = asdict(space)
        if table is not None and table.vector_space != space.vector_space:
            answer["notice"] = other_space(self.settings, table, space)
        return answer

    def file(self, path: str) -> Path:
        """The file of an indexed photo. Other files are not served."""
        folder = self.settings.photos.resolve()
        file = (folder / path).resolve()
        if self.table().vector_of(path) is None or not file.is_relative_to(folder):
            raise HTTPException(404, f"{path} is not in the index")
        if not file.is_file():
            raise HTTPException(404, f"{path} was deleted from the folder")
        return file


Count = Annotated[int, Query(ge=1, le=100)]


def create_app(settings: Settings) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect(settings) as client:
            app.state.search = Search(settings, client)
            indexing = asyncio.create_task(app.state.search.keep_indexing())
            try:
                yield
            finally:
                indexing.cancel()
                await asyncio.gather(indexing, return_exceptions=True)

    # FastAPI's documentation pages load scripts from other sites.
    app = FastAPI(title="Visual search", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))

    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(featurewire.FeaturewireError)
    async def failed(_request: Request, error: featurewire.FeaturewireError) -> JSONResponse:
        status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 502)
        return JSONResponse({"detail": str(error)}, status)

    def search() -> Search:
        return app.state.search  # type: ignore[no-any-return]

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        return await search().status()

    @app.get("/api/photos")
    def photos(offset: Annotated[int, Query(ge=0)] = 0, limit: Count = 60) -> list[str]:
        return search().table().page(offset, limit)

    @app.get("/api/neighbours")
    def neighbours(path: str, count: Count = 12) -> list[Match]:
        """Neighbours of an indexed photo, without a call to the server."""
        table = search().table()
        vector = table.vector_of(path)
        if vector is None:
            raise HTTPException(404, f"{path} is not in the index")
        return [each for each in table.neighbours(vector, count + 1) if each.path != path][:count]

    @app.post("/api/search")
    async def by_image(request: Request, count: Count = 12) -> dict[str, Any]:
        """Neighbours of an uploaded photo; the body is its file."""
        image = bytearray()
        async for chunk in request.stream():
            image += chunk
            if len(image) > MAX_UPLOAD:
                raise HTTPException(413, f"the photo has more than {MAX_UPLOAD >> 20} MiB")
        return await search().neighbours_of_image(bytes(image), count)

    @app.get("/photos/{path:path}")
    def photo(path: str) -> FileResponse:
        return FileResponse(search().file(path))

    @app.get("/thumbnails/{path:path}")
    def thumbnail(path: str) -> Response:
        file = search().file(path)
        try:
            data = _thumbnail(file)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise HTTPException(422, f"{path} cannot be shown ({error})") from error
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=600"})

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _thumbnail(file: Path) -> bytes:
    with Image.open(file) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    upright.save(data, "JPEG", quality=85)
    return data.getvalue()
