"""The application that the service is measured against: FastAPI and SQLAlchemy's async ORM, as their documentation shows them.

Same table, same request and response models, same page size as the generated `billing` service. No tracing, no limits,
no problem documents, no layers.
"""

import os
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime
from typing import Annotated, ClassVar
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, DateTime, String, Text, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"), pool_size=10, max_overflow=0
)
new_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True)}


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = {"schema": "billing"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(40))
    customer_id: Mapped[UUID]
    total_amount: Mapped[int] = mapped_column(BigInteger)
    total_currency: Mapped[str] = mapped_column(String(3))
    due_on: Mapped[date | None]
    note: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def total(self) -> dict[str, int | str]:
        return {"amount": self.total_amount, "currency": self.total_currency}


class Money(BaseModel):
    amount: Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


class NewInvoice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: Annotated[str, Field(max_length=40)]
    customer_id: UUID
    total: Money
    due_on: date | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None


class InvoiceDetails(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    number: str
    customer_id: UUID
    total: Money
    due_on: date | None
    note: str | None
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


class InvoicePage(BaseModel):
    items: list[InvoiceDetails]
    next_cursor: UUID | None


async def _session() -> AsyncGenerator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(_session)]


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/invoices", status_code=201, response_model=InvoiceDetails)
async def create_invoice(body: NewInvoice, session: Session) -> Invoice:
    now = datetime.now(UTC)
    invoice = Invoice(
        id=uuid7(),
        number=body.number,
        customer_id=body.customer_id,
        total_amount=body.total.amount,
        total_currency=body.total.currency,
        due_on=body.due_on,
        note=body.note,
        status="draft",
        version=1,
        created_at=now,
        updated_at=now,
    )
    session.add(invoice)
    await session.commit()
    return invoice


@app.get("/v1/invoices/{invoice_id}", response_model=InvoiceDetails)
async def get_invoice(invoice_id: UUID, session: Session) -> Invoice:
    invoice = await session.get(Invoice, invoice_id)
    if invoice is None:
        raise HTTPException(404)
    return invoice


@app.get("/v1/invoices")
async def list_invoices(
    session: Session, limit: Annotated[int, Field(ge=1, le=100)] = 20, after: UUID | None = None
) -> InvoicePage:
    newest = select(Invoice).order_by(Invoice.id.desc()).limit(limit + 1)
    if after is not None:
        newest = newest.where(Invoice.id < after)
    found = list(await session.scalars(newest))
    items = [InvoiceDetails.model_validate(invoice) for invoice in found[:limit]]
    return InvoicePage(items=items, next_cursor=items[-1].id if len(found) > limit else None)
