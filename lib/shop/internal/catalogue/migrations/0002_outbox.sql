CREATE TABLE IF NOT EXISTS outbox (
  sequence BIGINT AUTO_INCREMENT PRIMARY KEY,
  order_id CHAR(36) NOT NULL,
  payload TEXT NOT NULL,
  headers TEXT NOT NULL,
  written DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  published DATETIME(6) NULL,
  KEY waiting (published, sequence),
  KEY of_order (order_id)
);
