"""What a role prints: one line an event on stderr, for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from .settings import LogSettings


def configure(settings: LogSettings, *, least: str = "debug") -> None:
    """Set up structlog and the standard library's logging alike, once per process.

    Args:
        settings: what is wanted.
        least: a level below which nothing is said whatever is wanted, for commands whose answer is their output.
    """
    levels = logging.getLevelNamesMapping()
    level = max(levels[settings.level.upper()], levels[least.upper()])
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if settings.format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_demote)
    # Libraries tell of what they retry by themselves at INFO; the roles say what matters of it.
    logging.basicConfig(
        level=level if level == logging.DEBUG else max(level, logging.WARNING), handlers=[handler], force=True
    )
    for chatty in ("asyncio", "httpx", "httpcore", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _demote(record: logging.LogRecord) -> bool:
    """Show what clients say of what they retry by themselves only where the level is `debug`.

    Kafka's and ClickHouse's clients report as errors and warnings what they then try again (a coordinator that is not
    elected yet, a server that is not there yet); the roles say by `ready` and in their last sentence what matters.
    """
    theirs = record.name.startswith(("aiokafka", "faust", "mode", "urllib3", "clickhouse_connect"))
    if not theirs or record.levelno >= logging.CRITICAL:
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger().isEnabledFor(logging.DEBUG)
