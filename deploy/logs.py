"""What a role prints: one line an event on stderr, for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from .settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Set up structlog and the standard library's logging alike, once per process."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
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
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _demote(record: logging.LogRecord) -> bool:
    """Keep what Kafka's client says in the log, but not as an alarm.

    It reports as errors what it then retries by itself (a coordinator that is not elected yet); the roles say by
    `ready` what matters of it.
    """
    if record.name.startswith(("aiokafka", "faust", "mode")) and record.levelno < logging.CRITICAL:
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True
