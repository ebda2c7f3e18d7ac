"""
An AI agent that talks to customers: sessions, bound context, events of two families.

Shows: `session()` around a conversation, so that no call has to repeat its ids; `bind`
for what several events share; `customer.*` and `ai.*` events; errors as events.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import NamedTuple

from catalogue import Product, find

import bizlog

MODEL = "gpt-4o-mini"
USD_PER_TOKEN = Decimal("0.0000006")

# One process stands for four services here; a service of its own names its source once,
# in bizlog.configure().
log = bizlog.get_logger(source="customer-agent")


class Answer(NamedTuple):
    """What the model said, and what it cost."""

    product: Product
    input_tokens: int
    output_tokens: int


class ModelUnavailableError(Exception):
    """The model did not answer."""


async def talk(session_id: str, user_id: str, question: str) -> Product | None:
    """Answer one question and recommend a product."""
    async with bizlog.session(session_id, user_id=user_id):
        log.info("customer.session_started", channel="chat")
        try:
            return await _answer(question)
        except ModelUnavailableError:
            log.bind(ai_model=MODEL).error("customer.failed", query_text=question)
            return None
        finally:
            log.info("customer.session_ended")


async def _answer(question: str) -> Product:
    started = time.perf_counter()
    answer = await _ask_model(question)
    log.bind(ai_model=MODEL, query_intent="find_product").info(
        "customer.queried",
        query_text=question,
        response_time_ms=round((time.perf_counter() - started) * 1000),
        ai_tokens_used=answer.input_tokens + answer.output_tokens,
    )
    accepted = len(question) % 2 == 0
    log.bind(model_name=MODEL).info(
        "ai.recommended",
        recommendation_accepted=accepted,
        recommended_product_id=answer.product.product_id,  # a property of our own
    )
    log.info("customer.feedback", rating=5 if accepted else 3)
    return answer.product


async def _ask_model(question: str) -> Answer:
    model_log = log.bind(model_name=MODEL, input_tokens=len(question))
    await asyncio.sleep(0.01)  # the model thinks
    found = find(question)
    if not found:
        model_log.error("ai.failed", failure="timeout")
        raise ModelUnavailableError
    output_tokens = 20 * len(found)
    model_log.info(
        "ai.completed",
        output_tokens=output_tokens,
        estimated_cost_usd=(len(question) + output_tokens) * USD_PER_TOKEN,
    )
    return Answer(found[0], len(question), output_tokens)
