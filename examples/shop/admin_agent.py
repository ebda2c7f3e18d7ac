"""
An AI agent for the staff: a typed event of its own beside the known ones.

Shows: a class for an event that the shop alone knows, checked like the built-in ones;
`user()` for who is at work; `admin.*` and `ai.*` events. `admin_user` is stored as a
keyed hash, so that staff can be told apart but not named.
"""

import asyncio
from typing import Annotated

from catalogue import Product

import bizlog

MODEL = "gpt-4o-mini"

log = bizlog.get_logger(source="admin-agent")


class RestockSuggested(bizlog.BaseEvent, event_type="restock.suggested", version=2):
    """The agent suggests to buy more of a product."""

    product_id: Annotated[str | None, bizlog.describe("The product.")] = None
    quantity: Annotated[
        int | None, bizlog.describe("How many to buy.", unit="items")
    ] = None


async def care_for(product: Product, admin_user: str, *, stock: int) -> None:
    """Do what staff do for one product, from listing it to taking it off."""
    with bizlog.user("staff-7"):
        staff_log = log.bind(admin_user=admin_user, product_id=product.product_id)
        staff_log.info("admin.product_created", product_name=product.name)
        await _describe(staff_log, product)
        staff_log.info("admin.product_updated", changed=["description"])
        await _restock(staff_log, product, stock)
        staff_log.info("admin.product_deleted", reason="end of season")


async def _describe(staff_log: bizlog.BusinessLogger, product: Product) -> None:
    await asyncio.sleep(0.01)  # the model writes
    text = f"{product.name}: loved by pets, approved by captains."
    log.info(
        "ai.description_generated",
        model_name=MODEL,
        input_tokens=len(product.name),
        output_tokens=len(text) // 4,
    )
    staff_log.info("admin.content_generated", ai_generated_content=text)


async def _restock(
    staff_log: bizlog.BusinessLogger, product: Product, stock: int
) -> None:
    log.info(
        RestockSuggested(
            event_type="restock.suggested", product_id=product.product_id, quantity=40
        )
    )
    await asyncio.sleep(0.01)  # the warehouse answers
    if stock < 0:
        staff_log.error("admin.failed", action="inventory_update")
        return
    staff_log.info(
        "admin.inventory_updated", previous_quantity=stock, new_quantity=stock + 40
    )
